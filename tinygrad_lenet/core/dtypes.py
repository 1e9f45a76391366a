"""The dtypes of tensors, NumPy's, under the names that they have in PyTorch."""

from numpy import dtype as _dtype

float16, float32, float64 = half, float, double = [*map(_dtype, ("float16", "float32", "float64"))]
int8, int16, int32, int64 = [*map(_dtype, ("int8", "int16", "int32", "int64"))]
uint8, uint16, uint32, uint64 = [*map(_dtype, ("uint8", "uint16", "uint32", "uint64"))]
short, int, long = int16, int32, int64
bool = _dtype("bool")
