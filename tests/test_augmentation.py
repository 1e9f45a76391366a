"""Random changes of images: against loops, matrices and PyTorch; the same bits for the same seed."""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_lenet.data import Compose, DataLoader, ElasticDistortion, RandomAffine
from tinygrad_lenet.data.augmentation import warp
from tinygrad_lenet.errors import ArgumentError, DTypeError, ShapeError

RNG = np.random.default_rng


def noisy(images, generator):
    return (images + 0.2 * generator.standard_normal(images.shape)).astype(images.dtype)


ALL = {
    "affine": RandomAffine(15, 0.1, (0.8, 1.2), 10, stretch=True),
    "elastic": ElasticDistortion(20, 2),
    "all": Compose([RandomAffine(10), ElasticDistortion(), noisy, RandomAffine(0, 0.2)]),
}


def images(n=5, c=1, h=9, w=7, dtype=np.float64, seed=0):
    return RNG(seed).standard_normal((n, c, h, w)).astype(dtype)


def read(image, y, x):
    """A pixel (C,) between four, by hand; outside, the nearest."""
    h, w = image.shape[1:]
    y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
    top, left = int(np.floor(y)), int(np.floor(x))
    down, right = min(top + 1, h - 1), min(left + 1, w - 1)
    fy, fx = y - top, x - left
    upper = (1 - fx) * image[:, top, left] + fx * image[:, top, right]
    return (1 - fy) * upper + fy * ((1 - fx) * image[:, down, left] + fx * image[:, down, right])


sizes = st.tuples(st.integers(0, 40), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))


@given(sizes, st.integers(0, 99), st.sampled_from([0, 1, 3, 20]))
def test_warp_equals_the_loops(shape, seed, reach):
    x = images(*shape, seed=seed)
    moved = (reach * RNG(seed + 1).standard_normal((2, shape[0], *shape[2:]))).astype(np.float32)
    kept = x.copy(), moved.copy()
    found = warp(x, moved)
    expected = np.empty_like(x)
    for n, i, j in np.ndindex(shape[0], *shape[2:]):
        y, z = np.float32(i) + moved[0, n, i, j], np.float32(j) + moved[1, n, i, j]
        expected[n, :, i, j] = read(x[n], float(y), float(z))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(moved, kept[1])


def test_warp_agrees_with_pytorchs_grid_sample(torch):
    x = images(3, 2, 11, 8)
    moved = (2 * RNG(1).standard_normal((2, 3, 11, 8))).astype(np.float32)
    rows, columns = np.arange(11)[:, None] + moved[0], np.arange(8) + moved[1]
    grid = np.stack([2 * columns / 7 - 1, 2 * rows / 10 - 1], axis=-1).astype(np.float64)
    expected = torch.nn.functional.grid_sample(
        torch.tensor(x), torch.tensor(grid), padding_mode="border", align_corners=True
    )
    np.testing.assert_allclose(warp(x, moved), expected.numpy(), atol=1e-5)


@given(st.integers(0, 999), st.booleans())
def test_an_affine_transform_is_turn_times_shear_times_scale(seed, stretch):
    transform = RandomAffine(40, 0.3, (0.5, 2.0), 30, stretch)
    h, w = 6, 9
    moved = transform.displacement((4, 1, h, w), RNG(seed))
    for n, (a, b, c, d, e, f) in enumerate(RNG(seed).uniform(-1, 1, (4, 6))):
        angle, slant = np.radians(40) * a, np.tan(np.radians(30) * b)
        tall, wide = 1.25 + 0.75 * (c if stretch else d), 1.25 + 0.75 * d
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # of (y, x)
        matrix = np.linalg.inv(turn @ np.array([[1, 0], [-slant, 1]]) @ np.diag([tall, wide]))
        for i, j in ((0, 0), (2, 7), (5, 3)):
            place = np.array([i - (h - 1) / 2, j - (w - 1) / 2])
            source = matrix @ place + [h * 0.3 * e, w * 0.3 * f]
            np.testing.assert_allclose(moved[:, n, i, j], source - place, atol=1e-5)


def test_a_quarter_turn_moves_pixels_as_numpy_does():
    x = images(1, 1, 5, 5)
    quarter = RandomAffine(degrees=90)

    class Always(np.random.Generator):
        def uniform(self, low, high, size):
            return np.ones(size)

    np.testing.assert_allclose(quarter(x, Always(np.random.PCG64())), np.rot90(x, -1, axes=(2, 3)), atol=1e-5)


@pytest.mark.parametrize(("h", "w", "sigma"), [(5, 7, 1.0), (6, 4, 2.5)])
def test_elastic_displacements_are_noise_under_a_gaussian(h, w, sigma):
    moved = ElasticDistortion(3.0, sigma).displacement((2, 1, h, w), RNG(0))
    noise = (RNG(0).random((2, 2, h, w), np.float32).astype(float) - 0.5) * 6
    reach = int(np.ceil(4 * sigma))
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weight /= weight.sum()
    padded = np.pad(noise, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    expected = np.zeros((2, 2, h, w))
    for a in range(2 * reach + 1):
        for b in range(2 * reach + 1):
            expected += weight[a] * weight[b] * padded[:, :, a : a + h, b : b + w]
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    assert (ElasticDistortion(0).displacement((1, 1, h, w), RNG(0)) == 0).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_results_are_new_of_one_dtype_and_repeatable(name, dtype):
    x = images(70, 2, 12, 10, dtype)
    kept = x.copy()
    x.flags.writeable = False
    first, again, other = ALL[name](x, RNG(3)), ALL[name](x, RNG(3)), ALL[name](x, RNG(4))
    assert (first.shape, first.dtype) == (x.shape, dtype)
    assert not np.shares_memory(first, x)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    with oracles.small_blocks("pooling._ROOM", 1):  # on three threads
        np.testing.assert_array_equal(ALL[name](x, RNG(3)), first)
    np.testing.assert_array_equal(ALL[name](np.asfortranarray(x), RNG(3)), first)
    assert ALL[name](x[:0], RNG(0)).shape == (0, 2, 12, 10)


def test_each_image_gets_its_own():
    same = np.repeat(images(1, 1, 12, 12), 5, axis=0)
    for name, transform in ALL.items():
        if name != "erasing":
            assert len({image.tobytes() for image in transform(same, RNG(0))}) == 5, name


def test_composed_displacements_add_up_and_other_transforms_stand_between():
    x, affine, elastic = images(), RandomAffine(10, 0.1), ElasticDistortion(5)
    rng = RNG(1)
    total = affine.displacement(x.shape, rng) + elastic.displacement(x.shape, rng)
    np.testing.assert_array_equal(Compose([affine, elastic])(x, RNG(1)), warp(x, total))
    rng = RNG(1)
    expected = elastic(-affine(x, rng), rng)
    np.testing.assert_array_equal(Compose([affine, lambda a, _: -a, elastic])(x, RNG(1)), expected)
    np.testing.assert_array_equal(Compose([Compose([affine]), elastic])(x, RNG(1)), elastic(affine(x, r := RNG(1)), r))


# In a loader


def batches(loader):
    return [tuple(part.numpy().tobytes() for part in batch) for batch in loader]


def make(**options):
    x, y = images(10, dtype=np.float32), np.arange(10)
    return DataLoader((x, y), 3, shuffle=True, seed=5, transform=ALL["all"], **options)


def test_a_loader_changes_the_images_anew_in_each_epoch_and_again_the_same_in_another_run():
    loader = make()
    first, second = batches(loader), batches(loader)
    again = make()
    again.epoch = 1
    assert batches(again) == second
    assert not {x for x, _ in first} & {x for x, _ in second}
    plain = DataLoader((images(10, dtype=np.float32), np.arange(10)), 3, shuffle=True, seed=5)
    assert [y for _, y in batches(plain)] == [y for _, y in first]


@pytest.mark.parametrize("stop", range(9))
def test_a_loader_goes_on_from_any_batch(stop):
    loader, whole = make(), make()
    expected = [batch for _ in range(3) for batch in batches(whole)]
    seen, states = [], [loader.state_dict()]
    for _ in range(3):
        for batch in loader:
            seen.append(tuple(part.numpy().tobytes() for part in batch))
            states.append(loader.state_dict())
    assert seen == expected
    resumed = DataLoader((images(10, dtype=np.float32), np.arange(10)), 3, True, seed=0, transform=ALL["all"])
    resumed.load_state_dict(states[stop])
    assert resumed.state_dict() == states[stop]
    rest = [batch for _ in range(3 - stop // 4) for batch in batches(resumed)]
    assert rest == expected[stop:]


def test_a_state_of_another_loader_is_refused():
    with pytest.raises(ArgumentError, match=r"batch 4.*there are 4"):
        make().load_state_dict({"seed": 0, "epoch": 0, "batch": 4})


# Errors


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: RandomAffine(degrees=-1), ArgumentError, r"degrees.*\[0, .*-1"),
        (lambda: RandomAffine(shear=90), ArgumentError, r"shear.*\[0, 90\), got 90"),
        (lambda: ElasticDistortion(sigma=0), ArgumentError, "sigma must lie in .*, got 0"),
        (lambda: RandomAffine(scale=(0, 1)), ArgumentError, "scale"),
        (lambda: Compose([3]), DTypeError, "Compose: each of transforms.*function, got 3"),
        (lambda: ElasticDistortion()(images()[0], RNG(0)), ShapeError, r"\(N, C, H, W\).*\(1, 9, 7\).*image\[None\]"),
        (lambda: ElasticDistortion()(images().astype(np.uint8), RNG(0)), DTypeError, "uint8.*255"),
        (lambda: ElasticDistortion()(images(), 0), DTypeError, "got int; pass .*default_rng"),
    ],
)
def test_mistakes_are_named(make, error, words):
    with pytest.raises(error, match=words):
        make()
