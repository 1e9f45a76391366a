"""Every op of the registry and each of its cases, with its gradients: a replay has the bits of the eager call."""

import warnings

import numpy as np
import pytest
from test_registry import OPS, find

import tinygrad_lenet as tl
from tinygrad_lenet.core.interface import Draw

CASES = [pytest.param(op, i, id=f"{op.name}-{i}") for op in OPS.values() for i in range(len(op.cases))]


def drawn(a, rng, dtype):
    values = rng.uniform(a.low, a.high, a.shape) if a.values is None else a.values
    return tl.tensor(np.asarray(values).astype(dtype))


@pytest.mark.filterwarnings("ignore:.*(divide|overflow|invalid).*:RuntimeWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("op", "case"), CASES)
def test_every_op_and_its_gradients(op, case, dtype):
    args, kwargs = op.cases[case]
    places = [i for i, a in enumerate(args) if isinstance(a, Draw)]

    def function(*tensors):
        inputs = [x.detach() for x in tensors]
        for x in inputs:
            x.requires_grad = x.dtype.kind == "f"
        given = list(args)
        for i, x in zip(places, inputs, strict=True):
            given[i] = x
        out = find(op)(*given, **kwargs)
        if not out.requires_grad:
            return [out.detach()]
        gradients = tl.grad([out], inputs, [tl.ones(*out.shape) * 0.5], allow_unused=True)
        return [out.detach(), *gradients]

    compiled, rng = tl.compile(function), np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "tl.compile")
        for _ in range(4):
            tensors = [drawn(args[i], rng, dtype) for i in places]
            for a, b in zip(function(*tensors), compiled(*tensors), strict=True):
                assert (a is None) == (b is None)
                assert a is None or (a.dtype == b.dtype and a.shape == b.shape)
                assert a is None or a.numpy().tobytes() == b.numpy().tobytes()
    assert compiled.replayed == 2
