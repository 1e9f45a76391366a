"""Names of PyTorch that the package lacks: each is answered, and code in an answer does as it says."""

import abc
import re
import subprocess
import sys
import traceback
from collections import defaultdict

import numpy as np
import pytest
from hints import FILE, NAMES, PLACES, without_existing

import tinygrad_lenet as tl
from tinygrad_lenet import hints, nn, optim

ENTRIES = [(place, name, text) for place, table in hints.answers().items() for name, text in table.items()]


def answer(owner, name):
    with pytest.raises(AttributeError) as caught:
        getattr(owner, name)
    return caught.value


@pytest.mark.parametrize("place", NAMES)
def test_every_name_of_pytorch_is_here_or_answered(place):
    owner = PLACES[place]
    missing = [name for name in NAMES[place] if not hasattr(owner, name) and name[0] != "_"]
    errors = {name: answer(owner, name) for name in missing}
    bare = [name for name, error in errors.items() if "; " not in str(error)]
    assert not bare
    for name, error in errors.items():
        assert str(error).isascii()
        assert f"no attribute '{name}'; " in str(error)
        assert error.name == name
        assert "Did you mean" not in "".join(traceback.format_exception(error))


def test_every_answer_is_for_a_name_that_is_missing():
    gone = without_existing(FILE.read_text())[1]
    how = "run `python tests/tools/hints.py --write` to remove them"
    assert not gone, f"hints.txt has entries for names that exist now: {', '.join(gone)}; {how}"


def test_entries_of_names_that_exist_are_removed():
    text = "# a | b\nsvd relu | one\n\nsigmoid | two\n*_copy | three\n[tl]\nfft | four\nno_grad | five\n"
    kept = "# a | b\nsvd | one\n\n*_copy | three\n[tl]\nfft | four\n"
    assert without_existing(text) == (kept, ["relu", "sigmoid", "tl.no_grad"])


def test_every_answer_is_for_a_name_of_pytorch_and_none_is_given_twice():
    torch = pytest.importorskip("torch")
    known = {name for names in NAMES.values() for name in names}
    known |= {name.removesuffix("_") for name in known}
    modules = [torch, torch.linalg, torch.optim, torch.nn, torch.nn.init, torch.nn.parallel, torch.nn.utils]
    unlisted = {name for _, name, _ in ENTRIES if "*" not in name} - known
    assert [name for name in unlisted if not any(hasattr(module, name) for module in modules)] == []
    text = FILE.read_text()
    for part in re.split(r"\n\[\w+\]\n", text):
        names = [n for line in part.splitlines() if line and line[0] != "#" for n in line.partition(" | ")[0].split()]
        assert len(names) == len(set(names)), sorted({n for n in names if names.count(n) > 1})


def arrays():
    """The arguments that the file's first lines declare."""
    draw = np.random.default_rng(0)
    found = {name: draw.uniform(0.2, 1.7, (3, 3)).astype("float32") for name in "xyz"}
    found |= {name: draw.uniform(0.2, 0.9, 3).astype("float32") for name in "vw"}
    found |= {name: draw.uniform(0.2, 1.7, (2, 3, 3)).astype("float32") for name in "bc"}
    found["img"] = draw.uniform(0.2, 1.7, (2, 4, 6, 6)).astype("float32")
    found |= {"i": np.array([0, 2]), "j": np.array([1, 2]), "k": draw.integers(0, 3, (3, 3)), "mask": found["x"] > 0.8}
    found["w"][1] *= -1  # for signs
    return found


def scope():
    model = nn.Linear(3, 4)
    model.register_buffer("mean", tl.zeros(3))
    return {name: tl.tensor(array) for name, array in arrays().items()} | {
        "tl": tl,
        "nn": nn,
        "F": tl.functional,
        "optim": optim,
        "np": np,
        "model": model,
    }


def as_arrays(value):
    if isinstance(value, (tuple, list)):
        return [array for element in value for array in as_arrays(element)]
    return [np.asarray(value.detach() if hasattr(value, "detach") else value)]


TRANSLATION = re.compile("for `([^`]+)` write `([^`]+)`")
TRANSLATIONS = [(name, text) for _, name, text in ENTRIES if TRANSLATION.match(text)]


@pytest.mark.parametrize(("name", "text"), TRANSLATIONS, ids=[name for name, _ in TRANSLATIONS])
@pytest.mark.filterwarnings("ignore")
def test_a_translation_gives_what_pytorch_gives(name, text):
    torch = pytest.importorskip("torch")
    theirs, ours = TRANSLATION.match(text.replace("{}", name)).groups()
    tensors = {key: torch.tensor(array) for key, array in arrays().items()}
    expected = as_arrays(eval(theirs, {**tensors, "torch": torch, "F": torch.nn.functional}))
    found = as_arrays(eval(ours, scope()))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype.kind == other.dtype.kind
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert np.isfinite(other).any()


PLAIN = [(name, text) for _, name, text in ENTRIES if not TRANSLATION.match(text)]
CODE = sorted({(name, code) for name, text in PLAIN for code in re.findall("`([^`]+)`", text)})


@pytest.mark.parametrize(("name", "code"), CODE, ids=[f"{name}-{n}" for n, (name, _) in enumerate(CODE)])
def test_code_in_an_answer_runs(name, code):
    code = code.replace("{}", name)
    if code not in ("mode=", "dtype=", "step()", "state_dict", "load_state_dict"):
        values = scope()
        values["x"].requires_grad = "hook" in code
        with np.printoptions():  # one answer changes them
            exec(code, values)


# The attribute is still missing, as cheaply and as clearly as without answers


def run(code):
    """Run a program; return what it prints and the error that Python shows."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return run.stdout + run.stderr


START = """
import copy, pickle
import numpy as np
import tinygrad_lenet as tl
from tinygrad_lenet import hints, nn
x = tl.tensor([1.0, 2.0])
"""


def test_python_numpy_and_pickle_do_not_read_the_answers():
    program = f"""{START}
model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.Linear(3, 1))
np.asarray(x), np.sin(x), np.array([x, x]), x + np.ones(2), float(x[0]), f"{{x}}", repr(x)
copy.deepcopy(x), copy.copy(model), pickle.loads(pickle.dumps((x, model)))
model.load_state_dict(model.state_dict())
model(x).backward()
for thing in (x, model):
    assert not hasattr(thing, "__array_struct__") and not hasattr(thing, "_repr_html_")
read = hints.answers.cache_info
print(read().misses, hasattr(x, "cuda"), read().misses)
"""
    assert run(program) == "0 False 1\n"


@pytest.mark.parametrize(
    ("name", "guess"),
    [("x.relux", "relu"), ("nn.Liner", "Linear"), ("nn.Linear(2, 3).wieght", "weight"), ("tl.cross_entrpy", "")],
)
def test_a_typing_error_still_gets_the_guess_of_python(name, guess):
    shown = run(START + name)
    assert f"Did you mean: '{guess or 'cross_entropy'}'" in shown
    assert "; " not in shown


@pytest.mark.parametrize("name", ["tl.cummax", "nn.Bilinear", "x.relu_", "nn.Linear(2, 3).xpu"])
def test_an_answer_is_not_followed_by_a_guess(name):
    shown = run(START + name)
    assert "; " in shown
    assert "Did you mean" not in shown


def test_the_error_of_a_property_is_its_own():
    class Model(nn.Module):
        @property
        def double(self):
            return self.training.absent

    class Mine(tl.Tensor):
        @property
        def mine(self):
            return self.shape.absent

    with pytest.raises(AttributeError, match="'tuple' object has no attribute 'absent'"):
        _ = Mine([1.0]).mine
    with pytest.raises(AttributeError, match="'bool' object has no attribute 'absent'"):
        _ = Model().double


def test_without_the_file_names_are_missing_as_ever(monkeypatch):
    monkeypatch.setattr(hints, "answers", lambda: defaultdict(dict))
    hints.hint.cache_clear()
    assert str(answer(tl, "svd")) == "module 'tinygrad_lenet' has no attribute 'svd'"
    assert str(answer(tl.ones(1), "svd")) == "'Tensor' object has no attribute 'svd'"
    hints.hint.cache_clear()


@pytest.mark.parametrize("name", ["linalg.svd", "nn.init.orthogonal_", "functional.threshold", "utils", "nn.parallel"])
def test_modules_below_answer_too(name):
    *path, last = name.split(".")
    owner = tl
    for step in path:
        owner = getattr(owner, step)
    assert f"no attribute '{last}'; " in str(answer(owner, last))


# Other classes may have the missing names


def test_missing_names_are_not_listed():
    for thing in (tl.tensor(1.0), nn.Linear(2, 3), nn.Parameter([1.0])):
        assert "cuda" not in dir(thing)
        assert not hasattr(thing, "cuda")
        assert not hasattr(type(thing), "cuda")
        with pytest.raises(AttributeError, match="'cuda'; everything runs on the CPU"):
            _ = thing.cuda


@pytest.mark.parametrize("base", [tl.Tensor, nn.Module])
def test_a_subclass_may_define_or_inherit_a_missing_name(base):
    class Mixin:
        def cuda(self):
            return "mixin"

    class Own(base):
        @property
        def cuda(self):
            return "own"

    class Before(Mixin, base):
        pass

    class After(base, Mixin, abc.ABC):
        pass

    class Asked(base):
        def __getattr__(self, name):
            return f"asked for {name}"

    arguments = [[1.0]] if base is tl.Tensor else []
    assert Own(*arguments).cuda == "own"
    assert Before(*arguments).cuda() == After(*arguments).cuda() == After.cuda(None) == "mixin"
    assert Asked(*arguments).cuda == "asked for cuda"
    model = Asked(*arguments) if base is nn.Module else Mixin()
    model.cuda = 3
    assert model.cuda == 3
    del model.cuda
