"""Faults that programs of this kind had, one test for each; the first line of each says how it showed."""

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F
from tinygrad_lenet import nn
from tinygrad_lenet.testing import gradcheck

RNG = np.random.default_rng


def test_weights_are_not_updated_before_the_input_gradient_is_taken():
    # A layer's backward that updates its weight first gives its predecessor the gradient of another network.
    first, second = nn.Linear(3, 4, generator=0), nn.Linear(4, 2, generator=1)
    x = tl.tensor(RNG(0).standard_normal((5, 3)).astype(np.float32), requires_grad=True)
    old = [p.numpy().copy() for p in (first.weight, second.weight)]
    y = second(first(x))
    optimizer = tl.optim.SGD([*first.parameters(), *second.parameters()], lr=10.0)
    y.backward(np.ones(y.shape, np.float32))
    optimizer.step()
    np.testing.assert_allclose(x.grad.numpy(), np.ones((5, 2)) @ old[1] @ old[0], rtol=1e-5)


def test_batch_norm_s_input_gradient_goes_through_mean_and_variance():
    # Without these terms the gradients of a channel would not sum to 0.
    x = RNG(1).standard_normal((4, 3, 2, 2))
    weight, bias = np.array([1.0, 2.0, -0.5]), np.zeros(3)
    assert gradcheck(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), [x, weight, bias], order=2)
    tensor = tl.tensor(x, requires_grad=True)
    F.batch_norm(tensor, weight=weight, training=True).backward(RNG(2).standard_normal(x.shape))
    np.testing.assert_allclose(tensor.grad.numpy().sum(axis=(0, 2, 3)), 0, atol=1e-12)


def test_batch_norm_s_parameters_are_trained_and_its_statistics_are_saved():
    model = nn.LeNet5(batch_norm=True, generator=0)
    before = model.state_dict()
    optimizer = tl.optim.SGD(model.parameters(), lr=0.1)
    tl.cross_entropy(model(tl.randn(8, 1, 28, 28, generator=0)), np.arange(8)).backward()
    optimizer.step()
    after = model.state_dict()
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert not np.array_equal(before[f"norm1.{name}"], after[f"norm1.{name}"]), name
    twin = nn.LeNet5(batch_norm=True, generator=1)
    twin.load_state_dict(after)
    x = tl.randn(3, 1, 28, 28, generator=2)
    np.testing.assert_array_equal(model.eval()(x).numpy(), twin.eval()(x).numpy())


def test_a_tie_in_max_pooling_does_not_give_each_the_whole_gradient():
    x = tl.zeros(1, 1, 4, 4, requires_grad=True)
    g = np.array([[[[1.0, 2.0], [3.0, 4.0]]]], np.float32)
    tl.max_pool2d(x, 2).backward(g)
    np.testing.assert_array_equal(x.grad.numpy()[0, 0, ::2, ::2], g[0, 0])
    assert x.grad.numpy().sum() == g.sum()


def test_a_pooling_mask_is_not_kept_from_the_batch_before():
    pool = nn.MaxPool2d(2)
    first = tl.tensor([[[[9.0, 0.0], [0.0, 0.0]]]], requires_grad=True)
    second = tl.tensor([[[[0.0, 0.0], [0.0, 9.0]]]], requires_grad=True)
    results = pool(first), pool(second)
    for y in results:  # the backward passes after both forward passes
        y.backward(np.ones((1, 1, 1, 1), np.float32))
    np.testing.assert_array_equal(first.grad.numpy().ravel(), [1, 0, 0, 0])
    np.testing.assert_array_equal(second.grad.numpy().ravel(), [0, 0, 0, 1])


@pytest.mark.parametrize("kernel", [2, 3, (2, 3)])
def test_the_average_pool_s_gradient_has_the_right_factor(kernel):
    kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
    x = tl.tensor(RNG(0).standard_normal((2, 3, 6, 6)), requires_grad=True)
    y = tl.avg_pool2d(x, kernel)
    y.backward(np.ones(y.shape))
    np.testing.assert_allclose(x.grad.numpy(), 1 / (kh * kw))


def test_dropout_scales_what_it_keeps():
    x = tl.ones(100_000)
    y = F.dropout(x, 0.8, generator=0).numpy()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - 0.8))}
    assert abs(y.mean() - 1) < 0.05  # five standard errors are 0.03


@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 2, 1), (7, 4, 2), (8, 4, 3), (5, 3, 2), (28, 5, 1)])
def test_the_input_gradient_of_same_convolution_has_the_input_s_shape(size, kernel, stride):
    x = tl.tensor(RNG(0).standard_normal((2, 1, size, size + 1)), requires_grad=True)
    w = tl.tensor(RNG(1).standard_normal((2, 1, kernel, kernel)))
    y = tl.conv2d(x, w, stride=stride, padding="same")
    assert y.shape == (2, 2, -(-size // stride), -(-(size + 1) // stride))
    y.backward(np.ones(y.shape))
    assert x.grad.shape == x.shape
    assert gradcheck(lambda x: tl.conv2d(x, w, stride=stride, padding="same"), [x.numpy()[:1, :, :7, :8]])


def test_images_that_the_stride_does_not_divide():
    # The last rows and columns are seen by no window: their gradient is 0, and the shapes fit.
    x = tl.tensor(RNG(0).standard_normal((1, 1, 8, 8)), requires_grad=True)
    y = tl.conv2d(x, np.ones((1, 1, 3, 3)), stride=3)
    assert y.shape == (1, 1, 2, 2)
    y.backward(np.ones(y.shape))
    np.testing.assert_array_equal(x.grad.numpy()[0, 0], np.pad(np.ones((6, 6)), ((0, 2), (0, 2))))


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_cross_entropy_is_finite_and_right_on_confident_logits(scale):
    logits = tl.tensor(np.array([[scale, -scale], [scale, -scale]], np.float32), requires_grad=True)
    losses = tl.cross_entropy(logits, [0, 1], reduction="none")
    np.testing.assert_allclose(losses.numpy(), [0, 2 * scale], rtol=1e-6)
    losses.sum().backward()
    np.testing.assert_allclose(logits.grad.numpy(), [[0, 0], [1, -1]], atol=1e-6)


def test_tanh_of_a_thousand_is_one():
    x = tl.tensor([1000.0, -1000.0], requires_grad=True)
    y = x.tanh()
    y.sum().backward()
    assert y.tolist() == [1, -1]
    assert x.grad.tolist() == [0, 0]


def test_relu_does_not_write_into_its_argument():
    for size in (4, 100_000):  # small and large results take memory from different places
        data = RNG(0).standard_normal(size)
        x = tl.tensor(data)
        y = x.relu()
        np.testing.assert_array_equal(x.numpy(), data)
        assert not np.shares_memory(x.numpy(), y.numpy())


def test_a_tensor_used_twice_gets_both_gradients():
    x = tl.tensor([3.0], requires_grad=True)
    (x * x + x).backward()
    assert x.grad.tolist() == [7]


def test_the_loss_of_the_last_smaller_batch_is_averaged_over_its_own_count():
    x, y = RNG(0).standard_normal((10, 3)).astype(np.float32), np.arange(10) % 3
    seen, total = 0, 0.0
    for logits, labels in tl.data.DataLoader((x, y), batch_size=4):
        total += tl.cross_entropy(logits, labels).item() * len(labels)
        seen += len(labels)
    assert seen == 10
    assert total / seen == pytest.approx(tl.cross_entropy(x, y).item(), rel=1e-6)


def test_test_images_are_normalised_by_the_training_set_s_statistics(mnist):
    root = mnist.parent
    test = tl.data.MNIST(root, train=False, download=False)
    one = test[0][0]
    np.testing.assert_array_equal(test[np.arange(50)][0][0], one)  # whatever else is in the batch
    train = tl.data.MNIST(root, train=True, download=False)
    pixels = train.images / 255
    np.testing.assert_allclose(one[0], (test.images[0] / 255 - pixels.mean()) / pixels.std(), rtol=1e-5, atol=1e-5)


def test_a_rule_whose_gradient_is_transposed_is_refused_though_it_has_as_many_elements():
    @tl.primitive
    def double(x: tl.Array) -> tl.Array:
        return 2 * x

    double.vjp(x=lambda g: 2 * g.T)
    with pytest.raises(tl.GradientError, match=r"double: the rule of 'x' gave ndarray .* of shape \(2, 3\).*\(3, 2\)"):
        double(tl.ones(3, 2, requires_grad=True)).backward(np.ones((3, 2)))


def test_the_bias_of_a_linear_map_of_a_tensor_by_itself_is_not_transposed():
    # "The weight is the left factor" was asked by identity, which also holds if the input is the weight.
    x, bias = tl.tensor(RNG(0).standard_normal((3, 2))), np.array([1.0, 10.0, 100.0])
    np.testing.assert_allclose(tl.linear(x, x, bias).numpy(), x.numpy() @ x.numpy().T + bias, rtol=1e-12)
