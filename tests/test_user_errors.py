"""What a user's own code raises inside a function of the package comes out as it was raised; ours have one name."""

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, testing, training

X = tl.tensor([[1.0, 2.0], [3.0, 4.0]])


class Mine(tl.ShapeError):
    """An error of the user's own class."""


class Model(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x)


def evaluate_loss(fn):
    batches = [(X, tl.tensor([0, 1], dtype="int64"))]
    return training.evaluate(nn.Identity(), batches, loss=lambda scores, labels, reduction: fn(scores))


def hooked(fn):
    x = tl.tensor(2.0, requires_grad=True)
    y = x * 3
    y.register_hook(fn)
    return tl.grad(y * 1, x)


DOORS = {
    "gradcheck": lambda fn: testing.gradcheck(fn, [X]),
    "numerical_gradient": lambda fn: testing.numerical_gradient(fn, [X]),
    "numerical_jacobian": lambda fn: testing.numerical_jacobian(fn, [X]),
    "grad": lambda fn: tl.grad(fn)(X),
    "value_and_grad": lambda fn: tl.value_and_grad(fn)(X),
    "vjp": lambda fn: tl.vjp(fn, X),
    "jvp": lambda fn: tl.jvp(fn, X, X),
    "jacobian": lambda fn: tl.jacobian(fn)(X),
    "hessian": lambda fn: tl.hessian(fn)(X),
    "hvp": lambda fn: tl.hvp(fn, X, X),
    "a hook in grad": hooked,
    "checkpoint": lambda fn: tl.checkpoint(fn, X),
    "evaluate, the model": lambda fn: training.evaluate(Model(fn), [(X, [0, 1])]),
    "evaluate, the loss": evaluate_loss,
    "summary": lambda fn: nn.summary(Model(fn), (1, 2)),
    "a module of a module": lambda fn: nn.Sequential(Model(fn))(X),
    "check_finite": lambda fn: training.check_finite(Model(fn), tl.tensor(np.nan), X),
}


@pytest.mark.parametrize("error", [Mine("mine"), tl.ArgumentError("mine: 3"), ValueError("mine: 3"), KeyError("mine")])
@pytest.mark.parametrize("door", DOORS)
def test_what_the_users_code_raises_comes_out_as_it_is(door, error):
    kind, text = type(error), str(error)
    error = kind(*error.args)  # fresh: no traceback of another case

    def fn(*_):
        raise error

    with pytest.raises(kind) as caught:
        DOORS[door](fn)
    assert caught.value is error
    assert str(error) == text
    assert caught.traceback[-1].name == "fn"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tl.grad(3, X), r"^grad: outputs must be tensors, output 0 is a int$"),
        (lambda: tl.grad(lambda x: x)(X), r"^grad: the function must return one number"),
        (lambda: tl.hvp(lambda x: x.sum(), X, [1.0]), r"^hvp: tangents must have the shapes"),
        (lambda: tl.vjp(lambda x: x, X)[1]([1.0]), r"^vjp: cotangents must have the shapes"),
        (lambda: tl.jacobian(lambda x: x)("a"), r"^jacobian: in argument 0: "),
        (lambda: testing.gradcheck(tl.tanh, X), r"^gradcheck: inputs must be a list"),
        (lambda: testing.gradcheck(tl.tanh, [X], order=3), r"^gradcheck: order must be 1 or 2"),
        (lambda: testing.gradcheck(lambda x: x.detach(), [X]), r"^argument 0, index \(\d, \d\): the recorded gradient"),
        (lambda: training.evaluate(nn.Identity(), [(X[0], [0])]), r"^evaluate: the model must return logits"),
        (
            lambda: training.evaluate(nn.Identity(), data.DataLoader([(X, 1), (X,)])),
            r"^DataLoader: sample 1 has length 1",
        ),
        (lambda: data.DataLoader((X, X[:1])), r"^DataLoader: the data set has arrays of the shapes"),
        (lambda: data.random_split(X, [3]), r"^random_split: lengths \[3\] add up to 3"),
        (lambda: data.RandomAffine()(X, 3), r"^RandomAffine: generator must be a Generator"),
        (lambda: tl.load("weights.txt"), r"^load: path, the name of the file, must end in"),
    ],
)
def test_a_message_begins_with_the_function_that_was_called(call, message):
    with pytest.raises(tl.TinygradLenetError, match=message):
        call()


def test_the_backward_pass_of_grad_names_the_op():
    x = tl.tensor([1.0], requires_grad=True)
    y = x * 1
    z = (x * y).sum()
    with tl.no_grad():
        y[...] = 0.0
    with pytest.raises(tl.GradientError, match=r"^mul: argument 'y', of shape \(1,\), was changed in place"):
        tl.grad(z, x)


def test_the_second_call_of_a_checkpoint_names_checkpoint_wherever_it_takes_place():
    weight = tl.ones(3, requires_grad=True)
    y = tl.checkpoint(lambda x: (x * weight).exp(), X[0][:1]).sum()
    with tl.no_grad():
        weight[0] = 2.0
    with pytest.raises(tl.GradientError, match=r"^checkpoint: a tensor that the function uses"):
        tl.grad(y, weight)
