"""An op of your own, declared in one place, and used in five ways.

    python examples/log_cosh.py

``log_cosh`` is a smooth absolute value: its slope is ``tanh(x)``. The ten lines below declare how it is computed, its
derivative, a test case, a method of Tensor, the function of NumPy that it stands in for, and how ONNX writes it.
"""

import math

import numpy as np

import tinygrad_lenet as tl
from tinygrad_lenet.testing import gradcheck

# NumPy has no such function. This one of your own takes arrays, and from now on Tensors too.
numpy_log_cosh = np.frompyfunc(lambda x: math.log(math.cosh(x)), 1, 1)


@tl.primitive
def log_cosh(x: tl.Array) -> tl.Array:
    """``log(cosh(x))``, as ``log(e^x + e^-x) - log(2)``, which does not overflow."""
    return np.logaddexp(x, -x) - math.log(2)


log_cosh.vjp(x=lambda g, x: g * tl.tanh(x))
log_cosh.check(tl.draw(3, 2))
log_cosh.known_as(method=True, numpy=numpy_log_cosh, onnx=lambda g, t, x: g.node("Log", g.node("Cosh", x)))


def main() -> None:
    x = tl.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    print("rule        ", tl.grad(log_cosh(x).sum(), x))
    print("test case   ", gradcheck(log_cosh, order=2))
    print("method      ", x.log_cosh())
    print("NumPy       ", numpy_log_cosh(x))
    tl.onnx.export(log_cosh, (x,), "log_cosh.onnx")
    print("ONNX        ", tl.onnx.load("log_cosh.onnx")(x))


if __name__ == "__main__":
    main()
