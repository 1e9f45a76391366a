"""Weights in files of other libraries: what is saved is loaded, here, by PyTorch and by NumPy."""

import judges
import numpy as np
import pytest
import test_layers
import test_modules
from test_serialization import same
from vocabulary import CLASSES

import tinygrad_lenet as tl
from tinygrad_lenet import nn


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_weights_are_read_as_they_were_written(tmp_path, kind):
    if kind == "safetensors":
        pytest.importorskip("safetensors")
    model = nn.Sequential(nn.Conv2d(1, 2, 3, generator=0), nn.BatchNorm2d(2))
    path = tmp_path / f"model.{kind}"
    tl.save(path, model)
    first = path.read_bytes()
    tl.save(path, {name: tl.tensor(array) for name, array in model.state_dict().items()})
    assert path.read_bytes() == first
    state = tl.load(path)
    assert set(state) == set(model.state_dict())
    for name, array in model.state_dict().items():
        assert (state[name].dtype, state[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(state[name], array)
    for cut in (0, 1, 20, len(first) // 2, len(first) - 1):
        path.write_bytes(first[:cut])
        with pytest.raises(tl.DataError, match="damaged, cut off, or no"):
            tl.load(path)


def test_weights_go_to_pytorch_and_numpy_and_come_back(tmp_path, torch):
    from safetensors.torch import load_file, save_file

    model = nn.LeNet5(generator=0)
    tl.save(tmp_path / "a.safetensors", model)
    tl.save(tmp_path / "a.npz", model)
    theirs = load_file(tmp_path / "a.safetensors")
    with np.load(tmp_path / "a.npz") as archive:
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(theirs[name].numpy(), array)
            np.testing.assert_array_equal(archive[name], array)
    save_file({name: 2 * t for name, t in theirs.items()}, tmp_path / "b.safetensors")
    twin = nn.LeNet5()
    twin.load_state_dict(tl.load(tmp_path / "b.safetensors"))
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(2 * a.numpy(), b.numpy())


# Every layer that PyTorch has too, there and back


def tower(library):
    """Modules in lists and sequences, in both libraries."""

    class Tower(library.Module):
        def __init__(self):
            super().__init__()
            self.stem = library.Conv2d(2, 4, 3)
            parts = (library.Sequential(library.BatchNorm2d(4), library.PReLU(4)) for _ in range(2))
            self.layers = library.ModuleList(parts)
            self.head = library.ModuleDict({"flat": library.Flatten(), "linear": library.Linear(24, 3)})

        def forward(self, x):
            x = self.stem(x)
            for layer in self.layers:
                x = x + layer(x)
            for layer in self.head.values():
                x = layer(x)
            return x

    return Tower()


LAYERS = [*test_layers.LAYERS, *test_modules.LAYERS]
LAYERS += [("Dropout", (0.3,), {}, (5, 4)), ("Dropout2d", (0.3,), {}, (2, 3, 4, 4))]
CASES = {name: [case[1:] for case in LAYERS if case[0] == name] for name in dict.fromkeys(case[0] for case in LAYERS)}
CASES |= {name: [None] for name in ("LeNet5", "Sequential", "ModuleList", "ModuleDict")}  # see twins


def twins(torch, name, case):
    """How to make such a layer here, one there, and the shape of an input."""
    if name == "LeNet5":
        return nn.LeNet5, test_layers.torch_lenet(torch, "relu", "max", False), (2, 1, 28, 28)
    if case is None:
        return lambda: tower(nn), (tower(torch.nn),) * 2, (2, 2, 5, 4)
    args, options, shape = case
    theirs = getattr(torch.nn, name)(*args, **options)
    return lambda: getattr(nn, name)(*args, **options), (theirs, theirs), shape


def scrambled(model, seed=0):
    """With other weights and buffers, of the same dtypes."""
    rng = np.random.default_rng(seed)
    state = {
        name: np.array(7) if array.dtype.kind == "i" else np.abs(rng.standard_normal(array.shape)).astype(array.dtype)
        for name, array in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model.eval()


def ways(torch, path):
    """How a state dict goes there, and how it comes back."""
    from safetensors.torch import load_file, save_file

    def as_tensors(arrays):
        return {name: torch.tensor(array) for name, array in arrays.items()}

    def npz(state):
        np.savez(path / "b.npz", **{name: t.numpy() for name, t in state.items()})
        return tl.load(path / "b.npz")

    def saved(model, name):
        tl.save(path / name, model)
        return path / name

    yield "dict", lambda model: as_tensors(model.state_dict()), dict
    yield "npz", lambda model: as_tensors(np.load(saved(model, "a.npz"))), npz
    yield (
        "safetensors",
        lambda model: load_file(saved(model, "a.safetensors")),
        lambda state: save_file(state, path / "b.safetensors") or tl.load(path / "b.safetensors"),
    )


def outputs(found):
    return [np.asarray(t.detach()) for t in judges.listed(found)]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_weights_go_to_pytorch_and_come_back(torch, tmp_path, name, dtype, tolerance):
    for case in CASES[name]:
        build, (theirs, forward), shape = twins(torch, name, case)
        ours = scrambled(judges.widen(build()) if dtype == np.float64 else build())
        theirs.to(getattr(torch, np.dtype(dtype).name)), forward.eval()
        state = ours.state_dict()
        assert [(n, a.shape) for n, a in state.items()] == [(n, (*t.shape,)) for n, t in theirs.state_dict().items()]
        x = np.random.default_rng(1).standard_normal(shape).astype(dtype)
        x = np.abs(x * 2).astype(np.int64) % 5 if name == "Embedding" else x
        expected = outputs(ours(tl.tensor(x)))
        for _, there, back in ways(torch, tmp_path) if state else ():
            theirs.load_state_dict({n: torch.zeros_like(t) for n, t in theirs.state_dict().items()})
            theirs.load_state_dict(there(ours))  # strictly
            for a, b in zip(expected, outputs(forward(torch.tensor(x))), strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(a).max())
            again = judges.widen(build()) if dtype == np.float64 else build()
            again.load_state_dict(back(theirs.state_dict()))
            assert same(again.state_dict(), state)
            for a, b in zip(expected, outputs(again.eval()(tl.tensor(x))), strict=True):
                np.testing.assert_array_equal(a, b)


def test_no_layer_is_forgotten():
    kinds = {name for name in nn.__all__ if isinstance(getattr(nn, name), type) and name != "Module"}
    layers = {name for name in kinds if issubclass(getattr(nn, name), nn.Module)}
    losses = {name for name in layers if name in CLASSES["losses as layers"][2]}
    assert not [name for name in losses if getattr(nn, name)().state_dict()]
    assert layers == {*CASES, *losses}


def test_other_files_are_refused(tmp_path):
    with pytest.raises(tl.ArgumentError, match=r"must end in \.npz or \.safetensors, got .*model\.pth"):
        tl.save(tmp_path / "model.pth", {})
    with pytest.raises(tl.ArgumentError, match="must end in"):
        tl.load(tmp_path / "model.pth")
    with pytest.raises(tl.DataError, match="there is no file"):
        tl.load(tmp_path / "model.npz")
    with pytest.raises(tl.DTypeError, match="name must hold numbers"):
        tl.save(tmp_path / "model.npz", {"name": "LeNet"})
    with pytest.raises(tl.DataError, match=r"cannot be written.*there was none before"):
        tl.save(tmp_path / "nowhere" / "model.npz", {})
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    with pytest.raises(tl.DataError, match=r"not a \.npz file of numbers"):
        tl.load(tmp_path / "objects.npz")
