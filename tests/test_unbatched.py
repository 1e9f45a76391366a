"""Convolution and pooling of one image or sequence, and the indices of max pooling: as in PyTorch."""

import numpy as np
import pytest
from test_options import INF, NAN, gradients, leaves

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F

# One image or sequence, without a batch axis

G = np.random.default_rng(0)
IMAGE, ROW = G.standard_normal((4, 7, 6)), G.standard_normal((4, 9))
W2, W1, B = G.standard_normal((6, 4, 3, 2)), G.standard_normal((6, 4, 3)), G.standard_normal(6)
UNBATCHED = {
    "conv2d": (IMAGE, [W2, B], {"stride": 2, "padding": 1}),
    "conv2d, groups": (IMAGE, [G.standard_normal((4, 2, 3, 3))], {"groups": 2, "padding": "same"}),
    "conv_transpose2d": (IMAGE, [G.standard_normal((4, 3, 2, 3)), B[:3]], {"stride": 2, "output_padding": 1}),
    "conv1d": (ROW, [W1, B], {"stride": 2, "padding": 1}),
    "conv_transpose1d": (ROW, [G.standard_normal((4, 3, 2)), B[:3]], {"stride": 2}),
    "max_pool2d": (IMAGE, [], {"kernel_size": (3, 2), "padding": 1, "return_indices": True}),
    "avg_pool2d": (IMAGE, [], {"kernel_size": (3, 2), "padding": 1, "count_include_pad": False}),
    "max_pool1d": (ROW, [], {"kernel_size": 3, "stride": 2, "return_indices": True}),
    "avg_pool1d": (ROW, [], {"kernel_size": 3, "stride": 2}),
    "adaptive_avg_pool2d": (IMAGE, [], {"output_size": (3, 2)}),
    "unfold": (IMAGE, [], {"kernel_size": (3, 2), "stride": 2}),
    "fold": (G.standard_normal((12, 12)), [], {"output_size": (5, 4), "kernel_size": 2}),
}


@pytest.mark.parametrize("name", UNBATCHED)
def test_one_image_or_sequence_needs_no_batch_axis(torch, name):
    x, weights, options = UNBATCHED[name]
    found, expected = [], []
    for library, functions, result in ((tl, F, found), (torch, torch.nn.functional, expected)):
        xs = leaves(library, x, *weights)
        y = getattr(functions, name.split(",")[0])(*xs, **options)
        y, *indices = y if options.get("return_indices") else [y]
        result += [y.detach().numpy(), *(i.numpy() for i in indices), *gradients(y, xs, library)]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


LAYERS = {
    "Conv2d": ((4, 6, 3), IMAGE),
    "ConvTranspose2d": ((4, 6, 3, 2), IMAGE),
    "Conv1d": ((4, 6, 3), ROW),
    "ConvTranspose1d": ((4, 6, 3), ROW),
    "MaxPool2d": ((2,), IMAGE),
    "AvgPool2d": ((2,), IMAGE),
    "MaxPool1d": ((2,), ROW),
    "AvgPool1d": ((2,), ROW),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_take_one_image_or_sequence_as_a_batch_of_one(name):
    options, x = LAYERS[name]
    x = tl.tensor(x, dtype="float32")
    layer = getattr(tl.nn, name)(*options)
    np.testing.assert_array_equal(layer(x).detach().numpy(), layer(x[None])[0].detach().numpy())
    compiled = tl.compile(lambda v: layer(v))
    for _ in range(3):
        np.testing.assert_array_equal(compiled(x).detach().numpy(), layer(x).detach().numpy())
    with pytest.raises(tl.ShapeError, match=name.replace("Transpose", ".*")):
        layer(x[0])


def test_a_layer_says_which_shapes_it_takes():
    with pytest.raises(tl.ShapeError, match=r"Conv2d.*\(N, 4, H, W\) or \(4, H, W\), got \(3, 7, 6\)"):
        tl.nn.Conv2d(4, 6, 3)(IMAGE[:3])


# Indices of max pooling

IMAGES = {
    "plain": G.standard_normal((2, 3, 7, 6)),
    "ties": G.integers(0, 3, (2, 3, 7, 6)).astype(float),
    "nan": np.where(G.random((2, 3, 7, 6)) < 0.2, NAN, G.integers(0, 3, (2, 3, 7, 6))),
    "infinite": np.where(G.random((2, 3, 7, 6)) < 0.8, -INF, G.choice([NAN, INF, 0], (2, 3, 7, 6))),
    "integers": G.integers(-3, 3, (2, 3, 7, 6)),
}
WINDOWS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": 1, "padding": (1, 0), "dilation": (2, 1)},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
]


@pytest.mark.parametrize("options", WINDOWS)
@pytest.mark.parametrize("kind", IMAGES)
def test_indices_of_max_pooling_are_pytorchs(torch, kind, options):
    x = IMAGES[kind]
    y, i = tl.max_pool2d(tl.tensor(x), **options, return_indices=True)
    theirs, j = torch.nn.functional.max_pool2d(torch.tensor(x), **options, return_indices=True)
    assert i.dtype == np.int64
    assert not i.requires_grad
    np.testing.assert_array_equal(y.numpy(), theirs.numpy())
    np.testing.assert_array_equal(i.numpy(), j.numpy())
    layer = tl.nn.MaxPool2d(**options, return_indices=True)
    compiled = tl.compile(lambda v: layer(v))
    for _ in range(3):
        np.testing.assert_array_equal(compiled(tl.tensor(x))[1].numpy(), j.numpy())


def test_the_values_of_max_pooling_beside_the_indices_have_their_gradient():
    x = tl.tensor(IMAGES["ties"], requires_grad=True)
    y, i = tl.max_pool2d(x, 2, 2, 0, 1, False, True)
    y.sum().backward()
    picked = np.zeros((2, 3, 42))
    np.put_along_axis(picked, i.numpy().reshape(2, 3, -1), 1, 2)
    np.testing.assert_array_equal(x.grad.numpy().reshape(2, 3, 42), picked)
