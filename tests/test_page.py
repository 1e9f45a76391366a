"""The page's file: its arithmetic equals ours, whatever the network; nothing in it is markup but the page's own."""

import base64
import html.parser
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn, visualize
from tinygrad_lenet.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError, UnsupportedError

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed, which runs the page's JavaScript")
MEAN, STD = 0.13, 0.31

# Reads requests [page, expression, data], and writes what each expression gives in the scripts of its page.
RUNNER = r"""
const fs = require("fs"), vm = require("vm");
const answers = JSON.parse(fs.readFileSync(0)).map(([path, expression, data]) => {
  const text = fs.readFileSync(path, "utf8"), scripts = [...text.matchAll(/<script>([^]*?)<\/script>/g)].slice(0, 2);
  const description = text.match(/<script type="application\/json" id="network">([^]*?)<\/script>/)[1];
  const context = vm.createContext({ atob, data });
  vm.runInContext(scripts.map(script => script[1]).join("\n"), context);
  vm.runInContext(`const network = new Network(${JSON.stringify(JSON.parse(description))});`, context);
  return vm.runInContext(`JSON.stringify(${expression})`, context);
});
process.stdout.write(`[${answers}]`);
"""
LOGITS_AND_SALIENCY = """(() => {
  const values = network.forward(Float32Array.from(data.image));
  return [Array.from(values[values.length - 1]), Array.from(network.saliency(values, data.label))];
})()"""


def answers(requests):
    run = subprocess.run([NODE, "-e", RUNNER], input=json.dumps(requests), capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def ours(model, image, label):
    """Logits (classes,), and the gradient of one with respect to the pixels (H * W,)."""
    pixels = tl.tensor(image[None, None], requires_grad=True)
    logits = model.eval()((pixels - MEAN) / STD)
    logits[0, label].backward()
    return logits.detach().numpy()[0], pixels.grad.numpy().ravel()


def agree(models, folder, size=(28, 28)):
    """Assert that the pages of models compute what the models compute."""
    requests, expected, rng = [], [], np.random.default_rng(0)
    for i, model in enumerate(models):
        path = folder / f"{i}.html"
        visualize.page(model, path, mean=MEAN, std=STD, size=size)
        image = rng.random(size, np.float32)
        count = model.eval()(tl.zeros(1, 1, *size)).shape[1]
        label = int(rng.integers(count))
        requests.append([str(path), LOGITS_AND_SALIENCY, {"image": image.ravel().tolist(), "label": label}])
        expected.append(ours(model, image, label))
    for found, wanted, model in zip(answers(requests), expected, models, strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(1, np.abs(b).max()), err_msg=str(model))


ACTIVATIONS = [
    nn.ReLU,
    nn.ReLU6,
    lambda: nn.LeakyReLU(0.2),
    lambda: nn.ELU(0.7),
    lambda: nn.CELU(1.3),
    nn.SELU,
    nn.SiLU,
]
ACTIVATIONS += [lambda: nn.Softplus(2, 3), lambda: nn.Hardtanh(-0.5, 0.7), nn.Tanh, nn.Sigmoid]


def random_norm(rng, kind, features):
    norm = kind(features, eps=1e-3, affine=bool(rng.integers(2)))
    norm.running_mean.data = rng.normal(size=features).astype(np.float32)
    norm.running_var.data = rng.uniform(0.5, 2, features).astype(np.float32)
    if norm.weight is not None:
        norm.weight.data, norm.bias.data = rng.normal(1, 0.3, (2, features)).astype(np.float32)
    return norm


def random_window(rng, size):
    """Options of a window that fits into an image."""
    kernel = tuple(int(min(k, n)) for k, n in zip(rng.integers(1, 6, 2), size, strict=True))
    return kernel, tuple(map(int, rng.integers(1, 4, 2)))


def random_layer(rng, shape):
    """A layer for images of a shape (C, H, W)."""
    channels, *size = shape
    kernel, stride = random_window(rng, size)
    kind = rng.integers(6)
    half = tuple(int(rng.integers(k // 2 + 1)) for k in kernel)
    if kind == 0:
        return nn.MaxPool2d(kernel, stride, half, ceil_mode=bool(rng.integers(2)))
    if kind == 1:
        divisor = [None, 3][rng.integers(2)]
        ceil, counted = map(bool, rng.integers(2, size=2))
        return nn.AvgPool2d(kernel, stride, half, ceil, counted, divisor)
    if kind == 2:
        return random_norm(rng, nn.BatchNorm2d, channels)
    if kind == 3:
        return [nn.Dropout(0.5), ACTIVATIONS[rng.integers(len(ACTIVATIONS))]()][rng.integers(2)]
    groups = int(rng.choice([g for g in (1, 2, 3) if channels % g == 0]))
    options = {"groups": groups, "bias": bool(rng.integers(2)), "generator": int(rng.integers(99))}
    if kind == 4:
        options |= {"padding": "same", "dilation": int(rng.integers(1, 3))}
    else:
        options |= {"padding": ((1, 0), (2, 3)), "stride": stride}
    return nn.Conv2d(channels, groups * int(rng.integers(1, 4)), kernel, **options)


def random_network(seed, size):
    rng = np.random.default_rng(seed)
    layers, shape = [], (1, *size)
    while len(layers) < rng.integers(1, 7):
        layer = random_layer(rng, shape)
        layers.append(layer)
        shape = nn.Sequential(*layers).eval()(tl.zeros(1, 1, *size)).shape[1:]
    layers += [nn.Flatten(), nn.Linear(int(np.prod(shape)), 7, generator=seed), random_norm(rng, nn.BatchNorm1d, 7)]
    return nn.Sequential(*layers, ACTIVATIONS[seed % len(ACTIVATIONS)](), nn.Linear(7, 5, bias=False, generator=seed))


@needs_node
def test_random_networks_give_our_logits_and_our_saliency(tmp_path):
    agree([random_network(seed, (13, 11)) for seed in range(60)], tmp_path, (13, 11))


class Functions(nn.Module):
    """A model as it is written by those who call functions."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(1, 3, 5), nn.MaxPool2d(4), nn.Linear(108, 10)
        self.scale = nn.Parameter(np.ones((3, 1, 1), np.float32) * 2)

    def forward(self, x):
        x = tl.avg_pool2d(self.pool(tl.relu(2 - self.conv(x) / self.scale)).tanh(), 1)
        return self.fc(x.reshape(-1, 108)) * 0.5 + 1


@needs_node
def test_lenet5_and_models_that_call_functions_give_our_logits_and_our_saliency(tmp_path):
    lenets = [
        nn.LeNet5(activation=activation, pool=pool, batch_norm=norm, generator=0)
        for activation, pool, norm in [("relu", "max", False), ("tanh", "avg", True), ("elu", "max", True)]
    ]
    agree([*lenets, Functions(), nn.Sequential(nn.Flatten(), nn.Linear(784, 2))], tmp_path)


@needs_node
def test_the_page_without_a_kernel_activations_or_with_a_snapshot_is_another_network(tmp_path):
    model = nn.LeNet5(activation="tanh", generator=0)
    earlier = {
        name: array.astype(np.float16) for name, array in nn.LeNet5(activation="tanh", generator=1).state_dict().items()
    }
    path, image = tmp_path / "a.html", np.random.default_rng(0).random((28, 28), np.float32)
    visualize.page(model, path, mean=MEAN, std=STD, history={"epoch 1": earlier})
    data = {"image": image.ravel().tolist(), "label": 4}
    set_up = [
        "network.layers[0].off.add(2)",
        "network.activations = false",
        "network.setWeights(0)",
        "network.setWeights(1, 0, null)",
        "network.setWeights(1, 0.5, network.weights.map((_, i) => i % 2 ? 1 : -1))",
    ]
    found = answers([[str(path), f"({change}, {LOGITS_AND_SALIENCY})", data] for change in set_up])

    off, linear, old, noisy = (nn.LeNet5(activation="tanh", generator=0) for _ in range(4))
    keep = np.arange(6) != 2
    off.conv1.weight.data = off.conv1.weight.data * keep[:, None, None, None]
    off.conv1.bias.data = off.conv1.bias.data * keep
    linear.activation = nn.Identity()
    old.load_state_dict(earlier)
    signs = np.resize(np.array([-1, 1], np.float32), model.fc3.weight.size + 100_000)
    start = 0
    for layer in (noisy.conv1, noisy.conv2, noisy.fc1, noisy.fc2, noisy.fc3):
        weight = layer.weight.data
        layer.weight.data = weight + 0.5 * weight.std() * signs[start : start + weight.size].reshape(weight.shape)
        start += weight.size + layer.bias.size
    for result, changed in zip(found, [off, linear, old, model, noisy], strict=True):
        for a, b in zip(result, ours(changed, image, 4), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(1, np.abs(b).max()))


@needs_node
def test_a_drawing_is_prepared_as_a_picture_is(tmp_path):
    predict = pytest.importorskip("predict")
    draw = pytest.importorskip("PIL.ImageDraw")
    rng, path = np.random.default_rng(0), tmp_path / "page.html"
    visualize.page(nn.LeNet5(), path)
    requests, expected = [], []
    for i in range(12):
        picture = predict.Image.new("L", (280, 280), 255)
        corners = rng.integers(20, 260 if i % 3 else 120, (5, 2))
        for pair in itertools.pairwise(map(tuple, corners.tolist())):  # each line in another grey
            draw.Draw(picture).line(pair, fill=int(rng.integers(200)), width=22)
        picture.save(tmp_path / f"{i}.png")
        expected.append(predict.digit(tmp_path / f"{i}.png"))
        ink = 1 - np.asarray(picture) / 255
        expression = "Array.from(prepared(Float32Array.from(data), 280, 280, [28, 28]).image)"
        requests.append([str(path), expression, ink.ravel().tolist()])
    halves = np.arange(-7, 8) / 4
    *images, rounded = answers([*requests, [str(path), "data.map(rounded)", halves.tolist()]])
    for found, wanted in zip(images, expected, strict=True):
        np.testing.assert_allclose(found, wanted.ravel(), atol=1.5 / 255)  # Pillow rounds to bytes
    np.testing.assert_array_equal(rounded, halves.round())  # a half to the even number, as in Python


# The file


def described(path):
    """The data that Python wrote into a page."""
    return json.loads(re.search(r'id="network">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)[1])


class Elements(html.parser.HTMLParser):
    """The names and attributes of all elements."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, attributes))


EVIL = '</script><img src="x" onerror="document.title=1"><script>'


def test_names_and_labels_are_never_markup(tmp_path):
    class Evil(nn.Sequential):
        pass

    Evil.__name__ = EVIL
    plain, evil = nn.Sequential(nn.Flatten(), nn.Linear(784, 2)), Evil({"<b>": nn.Flatten(), "&": nn.Linear(784, 2)})
    visualize.page(plain, tmp_path / "a.html")
    visualize.page(
        evil,
        tmp_path / "b.html",
        title="{{network}} <b>",
        classes=[EVIL, "{{style}}"],
        history={EVIL: evil.state_dict()},
    )
    one, two = (Elements((tmp_path / name).read_text("utf-8")).found for name in ("a.html", "b.html"))
    assert one == two
    assert described(tmp_path / "b.html")["classes"] == [EVIL, "{{style}}"]
    visualize.page(evil, tmp_path / "c.html")
    assert Elements((tmp_path / "c.html").read_text("utf-8")).found == one


def test_the_file_is_small_asks_for_nothing_else_and_leaves_the_model_as_it_is(tmp_path):
    model, path = nn.LeNet5(generator=0), tmp_path / "page.html"
    before = model.state_dict()
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28)).astype(np.uint8)
    assert visualize.page(model, path, examples=(images, [3] * 20)) is None
    assert path.stat().st_size < 450_000
    elements = Elements(path.read_text("utf-8")).found
    assert not [(tag, name) for tag, found in elements for name, _ in found if name in ("src", "href")]
    assert model.training
    assert not any(name in vars(model) for name in ("forward",))
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())
    found = described(path)
    assert base64.b64decode(found["examples"]["images"]) == images.tobytes()
    assert found["parameters"] == 61_706


def test_images_of_floats_are_the_same_bytes_and_ten_snapshots_are_kept(tmp_path):
    model, path = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), tmp_path / "page.html"
    images = np.array([[[0, 1], [0.5, 0.25]]])
    visualize.page(model, path, size=2, examples=(images, np.array([1])), history=[model.state_dict()] * 10)
    found = described(path)
    assert list(base64.b64decode(found["examples"]["images"])) == [0, 255, 128, 64]
    assert [snapshot["name"] for snapshot in found["history"]] == [str(i) for i in range(1, 11)]
    weights = np.frombuffer(base64.b64decode(found["weights"]), "<f4")
    np.testing.assert_array_equal(weights, np.concatenate([p.numpy().ravel() for p in model.parameters()]))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 784)

    def forward(self, x):
        x = x.flatten(1)
        return x + self.fc(x)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 2), nn.Softmax(1)), r"softmax in layer 2, Softmax\(axis=1\)"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(2, 2), nn.Flatten()), r"layer 1, GroupNorm\(2, 2\)"),
        (nn.Sequential(nn.Sequential(nn.ZeroPad2d(1)), nn.Flatten()), r"pad in layer 0.0, ZeroPad2d"),
        (nn.Sequential(nn.Upsample(2), nn.Flatten()), r"layer 0, Upsample"),
        (nn.Sequential(nn.Flatten(), nn.GELU()), r"layer 1, GELU"),
        (Residual(), "add in Residual"),
        (nn.Sequential(nn.Conv2d(1, 2, 3)), "logits"),
        (nn.Flatten(0), "reshape in Flatten"),
    ],
)
def test_other_layers_are_refused_by_name(tmp_path, model, text):
    with pytest.raises(UnsupportedError, match=text):
        visualize.page(model, tmp_path / "page.html")
    assert not [*tmp_path.iterdir()]


def test_weights_that_are_nan_are_refused_and_large_ones_fit_into_a_snapshot(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    large = {name: np.full_like(array, 1e6) for name, array in model.state_dict().items()}
    visualize.page(model, tmp_path / "page.html", history=[large])
    weights = np.frombuffer(base64.b64decode(described(tmp_path / "page.html")["history"][0]["weights"]), "<f2")
    assert (weights == 65504).all()
    model[1].bias.data = np.array([np.nan, 0], np.float32)
    with pytest.raises(ArgumentError, match="NaN"):
        visualize.page(model, tmp_path / "page.html")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"classes": ["a"]}, ArgumentError, "2 outputs, but there are 1 classes"),
        ({"classes": [1, 2]}, DTypeError, "list of words"),
        ({"history": [{}] * 11}, ArgumentError, "11 snapshots"),
        ({"history": [3]}, DTypeError, "state dict"),
        ({"history": [{}]}, nn.StateError, "weight"),
        ({"std": 0}, ArgumentError, "std"),
        ({"size": (27, 28)}, ShapeError, "784"),
        ({"examples": 3}, DTypeError, "pair"),
        ({"examples": (np.zeros((1, 28, 28)),)}, DTypeError, "pair"),
        ({"examples": (np.zeros((1, 1, 28, 28)), [0])}, ShapeError, r"got \(1, 1, 28, 28\)"),
        ({"examples": (np.zeros((1, 28, 28)), [2])}, OutOfRangeError, r"0 \.\.\. 1"),
        ({"examples": (np.full((1, 28, 28), 2.0), [0])}, DTypeError, "from 0"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, options, error, text):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    with pytest.raises(error, match=text):
        visualize.page(model, tmp_path / "page.html", **options)
    assert not [*tmp_path.iterdir()]


def test_the_source_of_the_page_is_in_the_package_in_short_files():
    folder = Path(visualize.__file__).parent / "web"
    assert {path.name for path in folder.iterdir()} >= {"page.html", "page.css", "network.js", "page.js"}
    for path in folder.iterdir():
        assert len(path.read_text("utf-8").splitlines()) <= 500
        assert "</script" not in path.read_text("utf-8") or path.suffix == ".html"
