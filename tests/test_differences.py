"""The same word, another result, and no error: each line of the table, by PyTorch. And one word, one kind of result."""

import inspect

import numpy as np
import pytest
from judges import listed
from vocabulary import DIFFERENT, block, differences

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F

RNG = np.random.default_rng(0)
GIVEN = {
    "x": RNG.permutation(12).reshape(3, 4).astype(np.float32) / 8,
    "y": RNG.permutation(24).reshape(2, 3, 4).astype(np.float32) / 8,
    "v": np.float32([3, 1, 4, 2, 6, 5]),
    "w": np.float32([1, 2]),
    "n": np.float32([-1, np.nan]),
    "h": np.float16([0.1, 2]),
    "s": np.array(1.3, np.float32),
    "i": np.array([[0, 1, 2, 3]]),
    "u": np.uint8([1, 0, 3]),
    "b": np.array([True, False]),
}


def parts(found):
    """A result as plain data: if it is a tuple, and the kind, shape, dtype and values of its tensors."""
    rows = [isinstance(found, (tuple, list))]
    for part in listed(found):
        array = part if isinstance(part, np.ndarray) else part.detach().numpy()
        rows.append((isinstance(part, np.ndarray), array.shape, array.dtype, array.astype(float).round(4).tolist()))
    return repr(rows)


@pytest.mark.filterwarnings(
    "ignore:.*(deprecated|required to pass the indexing):UserWarning", "ignore:invalid:RuntimeWarning"
)
@pytest.mark.parametrize(("call", "here", "there", "instead"), DIFFERENT, ids=[row[0] for row in DIFFERENT])
def test_a_line_of_the_table_of_differences(torch, call, here, there, instead):
    ours = {"tl": tl, "F": F, **{name: tl.tensor(array) for name, array in GIVEN.items()}}
    theirs = {"tl": torch, "F": torch.nn.functional, **{name: torch.tensor(array) for name, array in GIVEN.items()}}
    found, expected = parts(eval(call, ours)), parts(eval(call, theirs))
    assert (found != expected) or there.endswith("with a warning")
    assert parts(eval(instead, ours)) == expected


def test_the_table_of_differences_in_the_readme_is_current():
    assert block("differences")[0] == differences(), "run: python tests/tools/vocabulary.py --write"


X, INDEX = tl.tensor(GIVEN["x"][:1]), np.zeros((1, 4), int)
OPTIONS = {  # what a call needs beside the first argument and the axis
    **{name: {"tensors": [X, X]} for name in ("concatenate", "cat", "concat", "stack")},
    **{name: {"index": INDEX} for name in ("gather", "scatter", "scatter_add")},
    "chunk": {"chunks": 2},
    "repeat": {"repeats": 2},
    "roll": {"shift": 1},
    "split": {"indices_or_sections": 1},
    "take_along_axis": {"indices": INDEX},
    "topk": {"k": 1},
}
OPTIONS["scatter"] = OPTIONS["scatter"] | {"src": 2.0}
OPTIONS["scatter_add"] = OPTIONS["scatter_add"] | {"src": X}


def names_of(function):
    return [*inspect.signature(function).parameters] if inspect.isfunction(function) else []


@pytest.mark.parametrize("name", [name for name in tl.__all__ if "axis" in names_of(getattr(tl, name))])
def test_the_kind_of_a_result_does_not_depend_on_how_an_axis_is_spelled(name):
    function, options = getattr(tl, name), OPTIONS.get(name, {})
    given = options if "tensors" in options else {names_of(function)[0]: X, **options}
    bound = inspect.signature(function).bind(axis=0, **given)
    bound.apply_defaults()
    expected = parts(function(*bound.args))
    for word in ("axis", "dim"):
        assert parts(function(**{word: 0}, **given)) == expected
