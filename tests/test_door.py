"""The door: what an annotation says of an argument is checked, and an error names the class or function that was
called. Users' own subclasses have no door.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import traceback
from collections.abc import Iterable
from dataclasses import InitVar
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim
from tinygrad_lenet.checks import Count, Decays, NonNegative, Positive, Probability, ranged
from tinygrad_lenet.core.signature import checked
from tinygrad_lenet.errors import ArgumentError, DTypeError, ShapeError
from tinygrad_lenet.optim.base import declared


def leaf(*values):
    return tl.tensor(np.array(values, np.float32), requires_grad=True)


# Annotations


class Dial:
    @checked
    def __init__(
        self, ticks: Count, teeth: Positive | None = None, p: Probability = 0.5, way: Literal["up", "down"] = "up"
    ) -> None:
        self.found = ticks, teeth, p, way

    @checked
    def turn(self, by: NonNegative, twice: bool = False) -> float:
        return by * (1 + twice)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Dial(-1), ArgumentError, "Dial: ticks must be at least 0, got -1"),
        (lambda: Dial(1.5), DTypeError, "Dial: ticks must be an integer, got 1.5"),
        (lambda: Dial(1, teeth=0), ArgumentError, "Dial: teeth must be at least 1, got 0"),
        (lambda: Dial(1, p=2), ArgumentError, "Dial: p must lie in [0, 1], got 2"),
        (lambda: Dial(1, way="left"), ArgumentError, "Dial: way must be 'up' or 'down', got 'left'"),
        (lambda: Dial(1).turn(-1.0), ArgumentError, "Dial.turn: by must lie in [0, inf), got -1.0"),
        (lambda: Dial(1).turn(1.0, 2), DTypeError, "Dial.turn: twice must be True or False, got 2"),
        (lambda: nn.Conv2d(1, 2, 3, groups=0), ArgumentError, "Conv2d: groups must be at least 1, got 0"),
        (lambda: nn.Dropout(2), ArgumentError, "Dropout: p must lie in [0, 1], got 2"),
        (lambda: nn.MSELoss("all"), ArgumentError, "MSELoss: reduction must be 'mean', 'sum' or 'none', got 'all'"),
        (lambda: nn.MSELoss("batchmean"), ArgumentError, "MSELoss: reduction must be .*"),
        (lambda: optim.Adam([leaf(1)], betas=(0.9, 1)), ArgumentError, "Adam: betas must lie in [0, 1), got 1"),
        (lambda: optim.Adam([leaf(1)], eps=-1), ArgumentError, "Adam: eps must lie in [0, inf), got -1"),
        (lambda: nn.init.normal_(tl.zeros(2), std=-1), ArgumentError, "normal_: std must lie in [0, inf), got -1"),
    ],
)
def test_a_range_refuses_and_the_error_names_who_was_called(call, error, message):
    with pytest.raises(error) as caught:
        call()
    if message.endswith(".*"):
        assert str(caught.value).startswith(message.removesuffix(".*"))
    else:
        assert str(caught.value) == message
    assert caught.value.caller == message.partition(":")[0]


def test_what_is_admitted_becomes_plain():
    found = Dial(np.int8(3), None, np.float32(0.25), "down").found
    assert found == (3, None, 0.25, "down")
    assert [type(value) for value in found] == [int, type(None), float, str]
    assert ranged(Decays)("betas", [np.float32(0.5), 0]) == (0.5, 0.0)
    assert ranged(Any) is None


def test_python_s_own_errors_name_the_class():
    for call, message in [
        (lambda: nn.Conv2d(), "Conv2d() missing 3 required positional arguments"),
        (lambda: nn.ConvTranspose1d(1, 2, 3, width=5), "ConvTranspose1d() got an unexpected keyword argument 'width'"),
        (lambda: optim.AdamW(), "AdamW() missing 1 required positional argument: 'params'"),
        (lambda: optim.AdamW([leaf(1)], rate=0.1), "AdamW() got an unexpected keyword argument 'rate'"),
        (
            lambda: optim.AdamW([leaf(1)], 0.1, (0.9, 0.9), 0, 0, False, 1),
            "AdamW() takes from 2 to 7 positional arguments",
        ),
        (lambda: optim.AdamW([leaf(1)], 0.1, lr=0.1), "AdamW() got multiple values for argument 'lr'"),
    ]:
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value).startswith(message)


def test_a_colon_in_a_message_is_left_alone(monkeypatch):
    @checked
    def dial(p):
        raise ArgumentError(p)

    class Net(nn.Module):
        def forward(self, message):
            raise ShapeError(message)

    class Inner(nn.Identity):
        def forward(self, message):
            raise ShapeError(message)

    monkeypatch.setattr(Inner.forward, "__module__", nn.Identity.__module__)  # as if it were the package's own
    for message in ("p: a number", "p", "dial: p", "a b: c"):
        with pytest.raises(ArgumentError) as caught:
            dial(message)
        assert str(caught.value) == f"dial: {message}"
        with pytest.raises(ShapeError) as caught:
            Inner()(message)
        assert str(caught.value) == f"Inner: {message}"
        with pytest.raises(ShapeError) as caught:
            Net()(message)
        assert str(caught.value) == message


def test_of_an_object_s_own_methods_the_one_that_was_called_is_named():
    with pytest.raises(DTypeError, match=r"^ModuleList: each of modules"):
        nn.ModuleList([3])
    with pytest.raises(DTypeError, match=r"^ModuleList\.append: module"):
        nn.ModuleList().append(3)
    with pytest.raises(DTypeError, match=r"^SGD: params is a set"):
        optim.SGD({leaf(1)})
    with pytest.raises(ArgumentError, match=r"^Linear: in_features"):  # not the class that makes it
        nn.Sequential(nn.Linear(-1, 2))
    optimizer = optim.SGD([leaf(1)])
    optimizer.param_groups[0]["lr"] = -1
    with pytest.raises(ArgumentError, match=r"^SGD\.step: lr must lie"):
        optimizer.step()


# Users' subclasses


def test_a_user_s_subclass_has_no_door():
    class Wide(nn.Linear):
        def __init__(self, in_features: Count, error: Exception | None = None) -> None:
            self.given = in_features
            if error is not None:
                raise error
            super().__init__(abs(in_features), 2)

    class Fast(optim.SGD):
        def __init__(self, params: Iterable[Any], lr: NonNegative) -> None:
            if lr == 5:
                raise ShapeError("lr: mine")
            super().__init__(params, lr / 10)

    assert Wide(-3).given == -3
    assert not hasattr(Wide.__init__, "__wrapped__")
    for own in (ValueError("a: b"), ShapeError("in_features: mine")):
        with pytest.raises(type(own)) as caught:
            Wide(1, own)
        assert caught.value is own
        assert str(own) == str(type(own)(own.args[0]))
        assert [frame.name for frame in traceback.extract_tb(own.__traceback__)][1:] == ["__init__"]
    with pytest.raises(DTypeError, match=r"^Fast: lr must be a number"):  # the door of SGD names the user's class
        Fast([leaf(1)], leaf(1))
    with pytest.raises(ShapeError, match=r"^lr: mine$"):
        Fast([leaf(1)], 5)
    assert Fast([leaf(1)], 1).param_groups[0]["lr"] == 0.1


IMAGES, COMPLEX = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 2, 2), complex)


@pytest.mark.parametrize(
    ("call", "start", "operand"),
    [
        (lambda: tl.add(IMAGES, COMPLEX), "add: y: ", "y"),  # a primitive
        (lambda: tl.conv2d(COMPLEX, IMAGES), "conv2d: ", "x"),  # composites
        (lambda: tl.conv2d(input=IMAGES, weight=COMPLEX), "conv2d: ", "weight"),
        (lambda: tl.conv2d(IMAGES, IMAGES, COMPLEX), "conv2d: ", "bias"),
        (lambda: tl.unfold(COMPLEX, 2), "unfold: ", "x"),
        (lambda: tl.fold(COMPLEX, 3, 2), "fold: ", "x"),
        (lambda: tl.max_pool2d(COMPLEX, 2), "max_pool2d: ", "x"),
        (lambda: tl.avg_pool2d(COMPLEX, 2), "avg_pool2d: ", "x"),
        (lambda: tl.huber_loss(IMAGES, COMPLEX), "huber_loss: ", "target"),
    ],
)
def test_an_operand_that_gives_no_array_is_named(call, start, operand):
    with pytest.raises(DTypeError) as caught:
        call()
    text = str(caught.value)
    assert text.startswith(f"{start}a tensor holds floats, integers or booleans")
    assert start.endswith(f"{operand}: ") or re.search(rf"\(given: .*\b{operand}=ndarray complex128 of shape", text)


def test_an_error_from_a_user_s_forward_keeps_its_type_and_traceback():
    class Net(nn.Module):
        def forward(self, error):
            raise error

    own = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        Net()(own)
    assert caught.value is own
    assert str(own) == "'mine'"
    own = ShapeError("mine")
    with pytest.raises(ShapeError) as caught:
        Net()(own)
    assert caught.value is own
    assert str(own) == "mine"
    assert traceback.extract_tb(own.__traceback__)[-1].name == "forward"


def test_options_of_a_user_s_optimizer_are_its_own():
    class Adan(optim.Optimizer):
        def update(self, w, g, state, options):
            w -= options["lr"] * g

    optimizer = Adan([leaf(1)], {"lr": np.float64(0.5), "betas": (0.9, 0.9, 1.5), "nesterov": "maybe"})
    assert optimizer.defaults == {"lr": 0.5, "betas": (0.9, 0.9, 1.5), "nesterov": "maybe"}
    assert type(optimizer.defaults["lr"]) is float
    with pytest.raises(ArgumentError, match=r"^Adan: lr must lie"):  # it means the same in every optimiser
        Adan([leaf(1)], {"lr": -1})


# Constructors that are made


@declared
class Tilted(optim.SGD):
    """SGD with an offset."""

    offset: InitVar[NonNegative] = 1.0
    lr: InitVar[NonNegative] = 2.0


def test_a_declared_optimizer_has_the_signature_that_its_annotations_say():
    assert str(inspect.signature(optim.SGD)).replace("'", "") == (
        "(params: Iterable[Any], lr: NonNegative = 0.001, momentum: NonNegative = 0.0, dampening: Real = 0.0, "
        "weight_decay: NonNegative = 0.0, nesterov: bool = False, *, maximize: bool = False) -> None"
    )
    assert list(inspect.signature(optim.AdamW).parameters) == list(inspect.signature(optim.Adam).parameters)
    assert [cls([leaf(1)]).defaults["weight_decay"] for cls in (optim.Adam, optim.AdamW)] == [0.0, 0.01]
    assert {*inspect.signature(Tilted).parameters} == {"params", *optim.SGD([leaf(1)]).defaults, "offset"}
    assert Tilted.__init__.__qualname__ == "Tilted.__init__"
    optimizer = Tilted([leaf(1)], 3, offset=np.float32(0.5))
    assert (optimizer.defaults["lr"], optimizer.defaults["offset"]) == (3.0, 0.5)
    assert not hasattr(optimizer, "lr")
    optimizer.param_groups[0]["offset"] = -1
    with pytest.raises(ArgumentError, match=r"^Tilted\.step: offset must lie"):
        optimizer.step()
    with pytest.raises(ArgumentError, match=r"^Tilted: offset must lie"):
        Tilted([leaf(1)], offset=-1)


# The sources


def functions_of(package):
    """All functions that are written in the modules of a package, with their names."""
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) != module.__name__:
                continue
            for key, function in vars(value).items() if inspect.isclass(value) else [("", value)]:
                function = getattr(function, "__func__", function)
                if inspect.isfunction(function):
                    yield f"{info.name}.{name}.{key}", function


@pytest.mark.parametrize("package", [nn, optim])
def test_a_range_in_an_annotation_is_checked(package):
    found = 0
    for name, function in functions_of(package):
        scope = inspect.unwrap(function).__globals__
        words = [w for word in function.__annotations__.values() for w in str(word).split(" | ")]
        helper = name.endswith(".") and function.__name__.startswith("_")
        if any(ranged(scope.get(word, word)) for word in words) and not helper:
            found += 1
            assert hasattr(function, "__wrapped__"), f"{name} has a range, and no door"
    assert found >= 8


@pytest.mark.parametrize("file", ["nn/lenet.py", "nn/layers.py", "optim/optimizers.py"])
def test_no_check_that_an_annotation_can_express(file):
    tree = ast.parse((Path(tl.__file__).parent / file).read_text())
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"integer", "number", "flag", "choice", "instance", "function"}


Metres = Annotated[float, "in metres"]


@pytest.mark.parametrize("annotation", [Annotated[float, []], "Metres", Metres, Literal[2, 3], "Literal[2, 3]"])
def test_a_user_may_annotate_an_option_with_anything(annotation):
    def scaled(x, factor=2.0):
        return x * factor

    scaled.__annotations__ = {"x": tl.Array, "factor": annotation}
    np.testing.assert_array_equal(tl.primitive(scaled)([1.0, 2.0], 3.0).numpy(), [3.0, 6.0])
