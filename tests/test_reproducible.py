"""Same seed, same bits: across runs, processes, hash seeds, numbers of threads, Python and NumPy versions.

python tests/test_reproducible.py            prints the table below as it is now
python tests/test_reproducible.py --write    puts it there: after a change of what is drawn, which is for the changelog

All randomness is that of NumPy's PCG64, whose raw bits NumPy promises to keep for a seed. What its ``Generator`` makes
of them, uniform and normal numbers and permutations, NumPy may change from version to version (NEP 19). It did not from
2.0 to 2.5; should it, the first rows of the table fail too, and one sees that it was NumPy, not the package. What is
drawn is compared bit for bit on x86-64, elsewhere to six digits: compilers there may fuse multiplications and
additions. What is computed from it goes through BLAS, SIMD and the C library, whose last bits are the processor's: it
is compared to four digits, and bit for bit between runs on one machine.
"""

import hashlib
import inspect
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, optim

IMAGES = np.linspace(0, 1, 6 * 2 * 12 * 10, dtype=np.float32).reshape(6, 2, 12, 10)


def rng():
    return np.random.default_rng(7)


def order(loader, epochs=1):
    return np.concatenate([batch[0].numpy() for _ in range(epochs) for batch in loader])


def loader(**options):
    return data.DataLoader(np.arange(1000), batch_size=64, shuffle=True, **{"seed": 3, **options})


def parameters(module):
    return np.concatenate([p.numpy().ravel() for _, p in sorted(module.named_parameters())])


def initialised(name):
    function = getattr(nn.init, name)
    return function(tl.zeros(6, 4, 3, 3), generator=7).numpy()


def distorted(transform, images=IMAGES):
    """The images, and what the generator draws next: how much was drawn."""
    generator = rng()
    return transform(images, generator), generator


def trained():
    """Losses and weights of a few steps of a network with all that is random in it."""
    generator = rng()
    images, labels = generator.random((256, 1, 28, 28), np.float32), np.arange(256) % 10
    batches = data.DataLoader(
        (images, labels), batch_size=64, shuffle=True, seed=1, transform=data.RandomAffine(10, 0.1)
    )
    model = nn.Sequential(nn.LeNet5(generator=2), nn.Dropout(0.1, generator=3))
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for x, y in batches:
        loss = tl.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.float32([*losses, *(float(np.abs(p.numpy()).mean()) for p in model.parameters())]), parameters(model)


LAYERS = {
    "Linear": lambda: nn.Linear(5, 3, generator=7),
    "Conv1d": lambda: nn.Conv1d(4, 6, 3, generator=7),
    "Conv2d": lambda: nn.Conv2d(4, 6, (3, 2), groups=2, generator=7),
    "ConvTranspose1d": lambda: nn.ConvTranspose1d(4, 6, 3, generator=7),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 6, 3, generator=7),
    "RNN": lambda: nn.RNN(3, 4, num_layers=2, bidirectional=True, generator=7),
    "LSTM": lambda: nn.LSTM(3, 4, generator=7),
    "GRU": lambda: nn.GRU(3, 4, generator=7),
    "Embedding": lambda: nn.Embedding(9, 4, generator=7),
    "LeNet5": lambda: nn.LeNet5(generator=7),
}
INITIALS = [name for name in dir(nn.init) if name.endswith(("uniform_", "normal_"))]


def noisy(images, generator):
    return generator.standard_normal(images.shape, np.float32) * 0.1 + images


DISTORTIONS = {
    "RandomAffine": data.RandomAffine(15, 0.1, (0.9, 1.1), 10, stretch=True),
    "ElasticDistortion": data.ElasticDistortion(8, 2),
    "Compose": data.Compose([data.RandomAffine(15), data.ElasticDistortion(8, 2), noisy]),
}

# What is drawn: as it comes, or scaled and shifted.
DRAWN = {
    "NumPy: PCG64(7).random_raw": lambda: np.random.PCG64(7).random_raw(100),
    "NumPy: PCG64([7, 1]).random_raw": lambda: np.random.PCG64([7, 1]).random_raw(100),
    "NumPy: random, float64": lambda: rng().random(100),
    "NumPy: random, float32": lambda: rng().random(100, np.float32),
    "NumPy: uniform": lambda: rng().uniform(-1, 1, 100),
    "NumPy: integers": lambda: rng().integers(2**63, size=100),
    "NumPy: permutation": lambda: rng().permutation(1000),
    "NumPy: standard_normal": lambda: rng().standard_normal(1000),
    "NumPy: standard_normal, float32": lambda: rng().standard_normal(1000, np.float32),
    "NumPy: normal": lambda: rng().normal(0.5, 2, 1000),
    "DataLoader, three epochs": lambda: order(loader(), 3),
    "DataLoader, seed from a generator": lambda: order(loader(seed=rng())),
    "random_split": lambda: np.concatenate([part.indices for part in data.random_split(np.arange(100), [70, 30], 7)]),
    "rand": lambda: tl.rand(10, 10, generator=7).numpy(),
    "randn": lambda: tl.randn(10, 10, generator=7).numpy(),
    "rand_like": lambda: tl.rand_like(tl.ones(10, 10), generator=7).numpy(),
    "randn_like": lambda: tl.randn_like(tl.ones(10, 10), generator=7).numpy(),
    "randint": lambda: tl.randint(-50, 50, (100,), generator=7).numpy(),
    "randperm": lambda: tl.randperm(100, generator=7).numpy(),
    "dropout": lambda: tl.dropout(tl.ones(10, 10), 0.3, generator=7).numpy(),
    "dropout2d": lambda: tl.dropout2d(tl.ones(10, 10, 2, 2), 0.3, generator=7).numpy(),
    "Dropout, twice": lambda: np.stack([m(tl.ones(50)).numpy() for m in [nn.Dropout(0.3, generator=7)] for _ in "ab"]),
    **{f"nn.{name}": lambda make=make: parameters(make()) for name, make in LAYERS.items()},
    **{f"nn.init.{name}": lambda name=name: initialised(name) for name in INITIALS},
    **{f"{name}, what is drawn next": lambda t=t: distorted(t)[1].random(4) for name, t in DISTORTIONS.items()},
}
COMPUTED = {
    **{name: lambda t=t: distorted(t)[0] for name, t in DISTORTIONS.items()},
    "four steps of LeNet-5": lambda: trained()[0],
}


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def digits(array):
    """A few numbers that change if one of the array's does."""
    flat = np.asarray(array, np.float64).ravel()
    return [float(f"{v:.7g}") for v in (flat[0], flat[-1], flat.mean(), (flat * np.arange(flat.size)).mean())]


# What came out, on x86-64: of what is drawn the first digits of SHA-256 of the bytes, of all some digits.
# golden: python tests/test_reproducible.py --write
# fmt: off
GOLDEN: dict[str, tuple[str, list[float]]] = {
    "NumPy: PCG64(7).random_raw": ("ff02ee0406e3af0d", [1.153098e+19, 2.266959e+18, 8.926036e+18, 4.309336e+20]),
    "NumPy: PCG64([7, 1]).random_raw": ("27ac054e7944d131", [1.420659e+19, 3.524055e+18, 8.846683e+18, 4.593863e+20]),
    "NumPy: random, float64": ("a1c5fe9006668735", [0.6250955, 0.1228921, 0.4838814, 23.36096]),
    "NumPy: random, float32": ("7b94e7b9f03292f7", [0.9449049, 0.8713393, 0.5348923, 26.22214]),
    "NumPy: uniform": ("ed070bfa133dc077", [0.2501909, -0.7542158, -0.03223724, -2.778084]),
    "NumPy: integers": ("229e9749e4bee2e4", [5.765488e+18, 1.13348e+18, 4.463018e+18, 2.154668e+20]),
    "NumPy: permutation": ("409ef9fa85de8cfd", [816.0, 651.0, 499.5, 249031.9]),
    "NumPy: standard_normal": ("654a29fcb53135b8", [0.001230153, -0.8254726, -0.07227958, -16.48624]),
    "NumPy: standard_normal, float32": ("63c234986272cdd5", [1.521969, -1.39515, -0.06089585, -49.94921]),
    "NumPy: normal": ("a98d0a6409b583ce", [0.5024603, -1.150945, 0.3554408, 216.7775]),
    "DataLoader, three epochs": ("6f21c0474107aef7", [334.0, 565.0, 499.5, 748526.5]),
    "DataLoader, seed from a generator": ("2ff8100b8222f2f1", [853.0, 750.0, 499.5, 245796.3]),
    "random_split": ("90e78a1e8a4a7ded", [88.0, 11.0, 49.5, 2509.37]),
    "rand": ("d960a6385fbc8567", [0.6250955, 0.1228921, 0.4838814, 23.36096]),
    "randn": ("fd77e12fa5d8bb71", [0.001230153, -2.035329, -0.17293, -5.527714]),
    "rand_like": ("d960a6385fbc8567", [0.6250955, 0.1228921, 0.4838814, 23.36096]),
    "randn_like": ("fd77e12fa5d8bb71", [0.001230153, -2.035329, -0.17293, -5.527714]),
    "randint": ("5a4ce2c9afb7fab7", [44.0, 37.0, 3.0, 123.26]),
    "randperm": ("0a0e60cf59d9ca2f", [37.0, 16.0, 49.5, 2393.17]),
    "dropout": ("514dcbdc88955267", [1.428571, 1.428571, 1.042857, 50.94286]),
    "dropout2d": ("1fd550aa1f223b98", [1.428571, 1.428571, 1.042857, 205.3357]),
    "Dropout, twice": ("514dcbdc88955267", [1.428571, 1.428571, 1.042857, 50.94286]),
    "nn.Linear": ("3e8f53c712e1a958", [0.04784949, 0.004068086, 0.04551798, -0.2054276]),
    "nn.Conv1d": ("913ebb3f30604506", [0.2159735, -0.1152275, 0.001065146, -0.5771662]),
    "nn.Conv2d": ("913ebb3f30604506", [0.2159735, -0.1152275, 0.001065146, -0.5771662]),
    "nn.ConvTranspose1d": ("886c72200bb6c136", [0.1763416, -0.09408288, 0.0008696886, -0.4712543]),
    "nn.ConvTranspose2d": ("766729f38d221558", [0.09874417, -0.05069859, 0.001575626, 0.08714119]),
    "nn.RNN": ("f57181ca281c68c7", [-0.488206, -0.4492959, 0.01652019, 2.313033]),
    "nn.LSTM": ("28dbc50b1994206e", [-0.320594, 0.04114382, 0.007559917, -0.2484766]),
    "nn.GRU": ("b02dccee57e45e1f", [-0.4748031, -0.2993933, -0.005037013, -0.3916971]),
    "nn.Embedding": ("5a747c9aec3144a1", [0.001230153, -0.8075347, -0.4434437, -9.521299]),
    "nn.LeNet5": ("0ef9e8eebab9440e", [0.0, 0.001098184, 0.0002541005, 4.328465]),
    "nn.init.kaiming_normal_": ("b2506e4f46211053", [0.0002899499, 0.01046185, -0.03022772, -2.076259]),
    "nn.init.kaiming_uniform_": ("962f83f03d2f2f13", [0.10214, -0.1520958, 0.002454669, 0.2525477]),
    "nn.init.normal_": ("b1549d05265d5bd7", [0.001230153, 0.04438589, -0.1282454, -8.808821]),
    "nn.init.uniform_": ("393cf964519f080c", [0.6250955, 0.3137215, 0.5030063, 54.05931]),
    "nn.init.xavier_normal_": ("04058ec5598b0c7a", [0.0001833804, 0.006616658, -0.01911769, -1.313141]),
    "nn.init.xavier_uniform_": ("d2fab8468dce7300", [0.06459902, -0.09619382, 0.001552469, 0.1597252]),
    "RandomAffine, what is drawn next": ("162c54f1716d210c", [0.3695363, 0.1544611, 0.3394448, 0.5318032]),
    "ElasticDistortion, what is drawn next": ("9376c9b94a9de879", [0.107025, 0.1012928, 0.487516, 0.7423711]),
    "Compose, what is drawn next": ("94e1abe9d91c138a", [0.6988224, 0.4406815, 0.4615659, 0.6049774]),
    "RandomAffine": ("", [0.0006819407, 0.9994218, 0.5011749, 481.354]),
    "ElasticDistortion": ("", [0.004949634, 0.9968325, 0.5005244, 479.6386]),
    "Compose": ("", [-0.1386085, 0.9140768, 0.4980496, 479.6318]),
    "four steps of LeNet-5": ("", [2.297281, 0.001258439, 0.6937694, 1.213969]),
}
# fmt: on
# end of golden


def table():
    lines = ["GOLDEN: dict[str, tuple[str, list[float]]] = {"]
    for name, make in {**DRAWN, **COMPUTED}.items():
        array = make()
        lines.append(f'    "{name}": ("{digest(array) if name in DRAWN else ""}", {digits(array)}),')
    return "\n".join(["# fmt: off", *lines, "}", "# fmt: on"])


@pytest.mark.parametrize("name", [*DRAWN, *COMPUTED])
def test_what_a_seed_gives_never_changes(name):
    array = {**DRAWN, **COMPUTED}[name]()
    expected, numbers = GOLDEN[name]
    if name in DRAWN and platform.machine().lower() in ("x86_64", "amd64"):
        assert digest(array) == expected, f"another stream under NumPy {np.__version__}; see the rows of NumPy alone"
    places = 1e-4 if name in COMPUTED else 1e-6
    np.testing.assert_allclose(digits(array), numbers, places, places)


def test_all_that_is_random_is_in_the_table():
    for name in nn.__all__:
        thing = getattr(nn, name)
        if (
            inspect.isclass(thing)
            and issubclass(thing, nn.Module)
            and "generator" in inspect.signature(thing).parameters
        ):
            assert name in LAYERS or "Dropout" in name
    public = [getattr(data, name) for name in data.__all__]
    assert {t.__name__ for t in public if inspect.isclass(t) and hasattr(t, "apply")} == DISTORTIONS.keys()
    assert {name for name in tl.__all__ if "generator" in str(_signature(name))} - {"checkpoint"} == {
        *("dropout", "dropout2d", "rand", "randn", "rand_like", "randn_like", "randint", "randperm")
    }


def _signature(name):
    try:
        return inspect.signature(getattr(tl, name))
    except (TypeError, ValueError):
        return ""


def test_a_loader_goes_on_where_another_stopped():
    whole, stopped, other = loader(), loader(), loader(seed=9)
    expected = order(whole, 3)
    list(stopped)
    batches = iter(stopped)
    next(batches), next(batches)
    other.load_state_dict(stopped.state_dict())
    np.testing.assert_array_equal(order(other, 2), expected[1128:])


def test_epochs_do_not_depend_on_each_other():
    one = loader()
    one.epoch = 2
    np.testing.assert_array_equal(order(one), order(loader(), 3)[2000:])


def bits():
    """Hashes of all, computed with whatever number of threads."""
    large = rng().standard_normal((64, 6, 28, 28)).astype(np.float32)
    x = tl.tensor(large, requires_grad=True)
    out = tl.batch_norm(tl.sigmoid(x).tanh().relu(), training=True).max_pool2d(2)
    (out * out).sum().backward()
    results = [make() for make in (*DRAWN.values(), *COMPUTED.values())]
    return [digest(a) for a in (*results, trained()[1], out.numpy(), x.grad.numpy())]


def test_threads_do_not_change_a_bit():
    before = tl.get_num_threads()
    try:
        found = []
        for number in (1, 2, 5):
            tl.set_num_threads(number)
            found.append(bits())
    finally:
        tl.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_processes_and_hash_seeds_do_not_change_a_bit():
    here = bits()
    for seed, threads in (("0", "1"), ("12345", "3")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        ran = subprocess.run(
            [sys.executable, __file__, "--bits"], env=environment, capture_output=True, text=True, check=True
        )
        assert ran.stdout.split() == here


if __name__ == "__main__":
    if "--bits" in sys.argv:
        print(*bits())
    elif "--write" in sys.argv:
        path = Path(__file__)
        text = path.read_text()
        start = text.index("\n", text.index("# golden" + ":")) + 1
        path.write_text(text[:start] + table() + "\n" + text[text.index("# end of " + "golden") :])
    else:
        print(table())
