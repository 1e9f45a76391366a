"""An op of your own, declared in one place, and used in five ways.

    python examples/log_cosh.py

``log_cosh`` is a smooth absolute value. Ten lines declare its forward function, its derivative, a test case, and its
names: a method of Tensor, a function of NumPy, and nodes of ONNX. ``main`` uses them all.
"""

import math
import tempfile

import numpy as np

import tinygrad_lenet as tl
from tinygrad_lenet.testing import gradcheck

# NumPy has no log_cosh; this universal function adds one. It takes arrays, and after the declaration Tensors too.
np_log_cosh = np.frompyfunc(lambda x: math.log(math.cosh(x)), 1, 1)


@tl.primitive
def log_cosh(x: tl.Array) -> tl.Array:
    """``log(cosh(x)) = log(e^x + e^-x) - log(2)``, without overflow."""
    return np.logaddexp(x, -x) - math.log(2)


log_cosh.vjp(x=lambda g, x: g * tl.tanh(x))
log_cosh.check(tl.draw(3, 2, low=-3, high=3))
log_cosh.known_as(
    method=True,
    numpy=np_log_cosh,
    onnx=lambda g, t, x: g.node("Sub", g.node("Softplus", g.node("Mul", x, t(2))), g.node("Add", x, t(math.log(2)))),
)


def main() -> None:
    x = tl.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    print("its derivative:     ", *tl.grad(log_cosh(x).sum(), x))
    ((arguments, _),) = log_cosh.op.cases
    print("its test case holds:", gradcheck(log_cosh, [tl.rand(*a.shape) * 6 - 3 for a in arguments], order=2))
    with tl.no_grad():
        print("as a method:        ", x.log_cosh())
        print("as a NumPy function:", np_log_cosh(x))
        with tempfile.TemporaryDirectory() as folder:
            tl.onnx.export(log_cosh, (x,), f"{folder}/log_cosh.onnx")
            print("as nodes of ONNX:   ", tl.onnx.load(f"{folder}/log_cosh.onnx")(x))


if __name__ == "__main__":
    main()
