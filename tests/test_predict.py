"""predict.py: it reads one digit alike in every kind of file, and no file or weights lead it astray."""

import argparse
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

import pictures  # noqa: E402

import tinygrad_lenet as tl  # noqa: E402
from tinygrad_lenet import data, nn, optim  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = pytest.mark.usefixtures("mnist")


@pytest.fixture(scope="module")
def predict(mnist):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import predict

        yield predict


ABOUT = {"model": "LeNet5", "activation": "tanh", "pool": "avg", "batch_norm": "False", "dataset": "MNIST"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, mnist):
    """Weights of a short training with tanh and average pooling, and the same without a description."""
    folder = tmp_path_factory.mktemp("trained")
    images, labels = data.MNIST(EXAMPLES / "data")[:12_000]
    model = nn.LeNet5(activation="tanh", pool="avg", generator=0)
    optimizer = optim.Adam(model.parameters(), lr=2e-3)
    for x, y in data.DataLoader((images, labels), 50, shuffle=True, seed=0):
        optimizer.zero_grad()
        tl.cross_entropy(model(x), y).backward()
        optimizer.step()
    tl.save(folder / "w.npz", model, ABOUT)
    tl.save(folder / "old.npz", model)
    return folder / "w.npz"


@pytest.fixture(scope="module")
def pages(mnist):
    """Some digits, each on a page."""
    test_set = data.MNIST(mnist.parent, train=False)
    chosen = [np.flatnonzero(test_set.labels == digit)[0] for digit in (1, 4, 7, 2, 6)]
    return [pictures.page(test_set.images[i]) for i in chosen]


def ran(predict, capfd, *args):
    """The output of predict.py and its last message. Checks that it writes nothing else."""
    message = ""
    try:
        predict.main([str(arg) for arg in args])
    except SystemExit as end:
        message = end.code
    out, err = capfd.readouterr()
    assert err == ""
    return out, message


def refused(predict, capfd, *args):
    """The message, one sentence or two, with which predict.py refuses something."""
    out, message = ran(predict, capfd, *args)
    assert out == ""
    assert isinstance(message, str)
    assert message.startswith("predict.py: ")
    assert len(message) < 600
    return message


# Pictures


def written(path, content):
    path.write_bytes(content)
    return path


def check(predict, trained, folder, make, page, reference):
    """The network's input and its answer are as for a plain PNG of the page."""
    plain = predict.digit(written(folder / "plain.png", pictures.pillow("PNG")(reference)))
    image = predict.digit(written(folder / "a", make(page)))
    assert image.shape == (28, 28)
    assert np.abs(image - plain).mean() < 0.005
    model = predict.load(trained)
    assert predict.probabilities(*model, image).argmax() == predict.probabilities(*model, plain).argmax()


@pytest.mark.parametrize("kind", pictures.KINDS)
def test_every_kind_of_picture_is_read_as_a_plain_one(predict, trained, pages, tmp_path, kind):
    for page in pages:
        check(predict, trained, tmp_path, pictures.KINDS[kind], page, page)
        check(predict, trained, tmp_path, pictures.KINDS[kind], 255 - page, page)


@pytest.mark.parametrize("kind", [*pictures.COARSE, *pictures.COARSE_INKS])
def test_every_kind_with_few_shades_is_read_as_black_and_white(predict, trained, pages, tmp_path, kind):
    make = (pictures.COARSE | pictures.COARSE_INKS)[kind]
    for page in pages:
        check(predict, trained, tmp_path, make, pictures.black(page), pictures.black(page))


@pytest.mark.parametrize("kind", pictures.INKS)
def test_ink_of_any_colour_is_read_on_a_transparent_background(predict, trained, pages, tmp_path, kind):
    for page in pages:
        check(predict, trained, tmp_path, pictures.INKS[kind], page, page)


@pytest.mark.parametrize("kind", pictures.ROTATED)
def test_a_picture_is_turned_as_its_exif_says(predict, trained, pages, tmp_path, kind):
    for page in pages:
        check(predict, trained, tmp_path, pictures.ROTATED[kind], page, page)


@pytest.mark.parametrize("kind", ["light on dark", "dark on light", "transparent", "off centre", "tiny"])
def test_ordinary_pictures_are_read(predict, trained, tmp_path, capfd, kind):
    mnist = data.MNIST(EXAMPLES / "data", train=False)
    paths = []
    for i in range(3000, 3012):
        pixels = mnist.images[i]
        if kind == "transparent":
            layers = np.zeros((28, 28, 4), np.uint8)
            layers[..., 3] = pixels
            picture = Image.fromarray(layers).resize((90, 90))
        elif kind == "off centre":
            wide = np.full((60, 200), 230, np.uint8)
            wide[20:48, 150:178] -= (pixels * 0.8).astype(np.uint8)
            picture = Image.fromarray(wide).resize((800, 240))
        else:
            size = {"tiny": (20, 20)}.get(kind, (230, 210))
            picture = Image.fromarray(255 - pixels if kind == "dark on light" else pixels).resize(size).convert("RGB")
        paths.append(tmp_path / f"{i}.png")
        picture.save(paths[-1])
    out, message = ran(predict, capfd, trained, *paths)
    assert message == ""
    found = [int(line.split(": ")[1].split()[0]) for line in out.splitlines()]
    assert (np.array(found) == mnist.labels[3000:3012]).sum() >= 10
    for line in out.splitlines():
        shares = [float(word[:-1]) for word in line.split()[3:] if word.endswith("%")]
        assert len(shares) == 10
        assert abs(sum(shares) - 100) < 1


def test_a_photo_of_64_megapixels_is_reduced_while_it_is_decoded(predict, trained, pages, tmp_path):
    large = Image.fromarray(pages[2]).resize((7200, 9000), Image.Resampling.NEAREST)
    large.save(tmp_path / "a.jpg", quality=50)
    lightness, _ = predict.decoded(tmp_path / "a.jpg")
    assert lightness.size <= (2 * predict.ENOUGH) ** 2
    check(
        predict, trained, tmp_path, lambda _: (tmp_path / "a.jpg").read_bytes(), pages[2], np.asarray(large.reduce(8))
    )
    for mode in ("L", "I;16"):
        Image.new(mode, (10_000_000, 1)).save(tmp_path / "long.png")
        assert predict.decoded(tmp_path / "long.png")[0].size <= 5_000_000
    small = large.resize((4100, 2300))
    for kind, change in (("L", None), ("RGBA", None), ("I;16", np.uint16), ("F", np.float32)):
        pixels = np.asarray(small)
        picture = Image.fromarray(pixels.astype(change)) if change else small.convert(kind)
        picture.save(tmp_path / "a.tif")
        assert predict.decoded(tmp_path / "a.tif")[0].size <= (2 * predict.ENOUGH) ** 2
        check(predict, trained, tmp_path, lambda _: (tmp_path / "a.tif").read_bytes(), pages[2], pixels)


def png(width, height, body=b""):
    """A PNG file of any claimed size."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def floats(*bad):
    page = np.ones(pictures.SHAPE, np.float32)
    page[40, 30 : 30 + len(bad)] = bad
    return pictures.written(Image.fromarray(page), "TIFF")


SQUARE = np.pad(np.full((30, 30), 255, np.uint8), 30)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\n(x) (w) file closepath\n%%EOF\n"
WRONG = {
    "blank": (pictures.written(Image.new("L", (30, 30), 77), "PNG"), "is blank"),
    "blank, 16 bits": (pictures.written(Image.new("I;16", (30, 30), 777), "PNG"), "is blank"),
    "blank, with noise": (pictures.array("TIFF", lambda p: np.float32(p) % 9 + 900)(SQUARE), "is blank"),
    "black": (floats(*[1] * 9), "is blank"),
    "empty picture": (pictures.written(Image.new("RGBA", (30, 30), (9, 9, 9, 0)), "PNG"), "is blank"),
    "one pixel": (pictures.written(Image.new("L", (1, 1)), "PNG"), "is blank"),
    "NaN": (floats(np.nan), "pixels that are NaN or infinite"),
    "infinite": (floats(np.inf, -np.inf), "pixels that are NaN or infinite"),
    "empty file": (b"", "damaged, or not a picture of the kinds PNG, JPEG, "),
    "words": (b"seven", "damaged, or not a picture of the kinds"),
    "EPS": (EPS, "damaged, or not a picture of the kinds"),
    "icon": (pictures.written(Image.new("RGB", (32, 32)), "ICO"), "damaged, or not a picture of the kinds"),
    "bomb": (png(10**5, 10**5), "more than 50,000,000 pixels; make a smaller"),
    "large": (png(7072, 7072), "has 50,013,184 pixels, expected 1 to 50,000,000; make another"),
    "large GIF": (b"GIF89a" + b"\xff" * 4 + pictures.pillow("GIF")(SQUARE)[10:], "more than 50,000,000 pixels"),
    "no width": (png(0, 28), ""),
    "no height": (b"P5 28 0 255\n", ""),
    "cut off": (pictures.pillow("PNG")(SQUARE)[:-60], "cannot be read"),
    "not compressed": (png(28, 28, b"\x09" * 812), "cannot be read: "),
    "words for numbers": (b"P5 one 1 255 \0", "not a picture that Pillow can read"),
    "wrong EXIF": (pictures.pillow("PNG", exif=b"Exif\0\0turn me")(SQUARE), "not a picture that Pillow can read"),
    "LZW": (pictures.pillow("TIFF", compression="tiff_lzw")(SQUARE).replace(b"\x80", b"\xff"), ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_files_are_refused_with_a_sentence(predict, trained, tmp_path, capfd, name):
    content, words = WRONG[name]
    message = refused(predict, capfd, trained, written(tmp_path / "a", content))
    assert f"{tmp_path / 'a'} " in message
    assert words in message


def test_a_file_cut_off_anywhere_gives_a_sentence_or_a_digit(predict, trained, pages, tmp_path, capfd):
    for kind in ("PNG L", "JPEG L", "GIF L", "BMP L", "TIFF tiff_lzw", "TIFF jpeg", "WEBP", "PGM 16", "PFM", "TIFF 12"):
        content = pictures.KINDS[kind](pages[0])
        for length in np.linspace(0, len(content) - 1, 40, dtype=int):
            out, message = ran(predict, capfd, trained, written(tmp_path / "a", content[:length]))
            assert bool(out) != bool(message)
            assert "nan" not in out
            assert message == "" or message.startswith(f"predict.py: {tmp_path / 'a'} ")


def test_no_other_format_is_opened(predict, trained, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)  # which starts Ghostscript
    opened = []
    known = Image.open

    def listen(file, *args, **kwargs):
        opened.append(kwargs["formats"])
        return known(file, *args, **kwargs)

    monkeypatch.setattr(Image, "open", listen)
    refused(predict, capfd, trained, written(tmp_path / "a.eps", EPS))
    assert opened == [predict.FORMATS]
    assert {*predict.FORMATS} == {"PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"}


def test_paths_that_are_not_pictures(predict, trained, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is no file none.png" in refused(predict, capfd, trained, "none.png")
    assert "it is a folder" in refused(predict, capfd, trained, ".")
    with open("sparse.webp", "wb") as file:
        file.write(b"RIFF\0\0\0\0WEBPVP8 ")
        file.truncate(predict.MOST_BYTES + 1)
    assert "more than 300,000,000 bytes" in refused(predict, capfd, trained, "sparse.webp")


def test_a_name_that_the_terminal_cannot_show(trained, pages, tmp_path):
    written(tmp_path / "sieben-\u2086.png", pictures.pillow("PNG")(pages[2]))
    for extra in ([], ["--show"]):
        done = subprocess.run(
            [sys.executable, EXAMPLES / "predict.py", trained, "sieben-\u2086.png", *extra],
            cwd=tmp_path,
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(b"sieben-\\u2086.png: 7 (")


# Weights


@pytest.fixture
def seven(pages, tmp_path):
    return written(tmp_path / "7.png", pictures.pillow("PNG")(pages[2]))


def test_the_file_says_which_network_it_is_of(predict, trained, seven, capfd):
    old = trained.with_name("old.npz")
    expected, message = ran(predict, capfd, trained, seven)
    assert message == ""
    assert expected.split(": ")[1].startswith("7 (")
    model = nn.LeNet5(activation="tanh", pool="avg")
    model.load_state_dict(tl.load(old))
    p = model((predict.digit(seven)[None, None] - data.MNIST.mean) / data.MNIST.std).softmax(1).numpy()[0]
    assert f"7: {p[7]:.1%}" in expected
    message = refused(predict, capfd, old, seven)
    assert "does not say which activation and pooling its network has" in message
    assert "both --activation and --pool" in message
    assert "both --activation" in refused(predict, capfd, old, seven, "--activation", "tanh")
    assert "both --activation" in refused(predict, capfd, old, seven, "--pool", "avg")
    for weights in (old, trained):
        assert ran(predict, capfd, weights, seven, "--activation", "tanh", "--pool", "avg") == (expected, "")
    other, _ = ran(predict, capfd, old, seven, "--activation", "relu", "--pool", "max")
    assert other != expected
    for option, value, true in (("--activation", "relu", "tanh"), ("--pool", "max", "avg")):
        message = refused(predict, capfd, trained, seven, option, value)
        assert f"is of a network with {option} {true}, got {value}; leave it out" in message
    with pytest.raises(SystemExit):
        predict.main([str(trained), str(seven), "--pool", "min"])
    assert "invalid choice: 'min'" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "leaky_relu", "elu"])
@pytest.mark.parametrize(("pool", "batch_norm"), [("max", False), ("avg", True)])
def test_every_network_is_made_as_it_was(predict, mnist, seven, tmp_path, kind, activation, pool, batch_norm):
    if kind == "safetensors":
        pytest.importorskip("safetensors")
    sys.modules.pop("lenet_mnist", None)
    description = pytest.importorskip("lenet_mnist", reason="matplotlib and tqdm").description
    options = {"activation": activation, "pool": pool, "batch_norm": batch_norm}
    model = nn.LeNet5(**options, generator=0).eval()
    about = description(argparse.Namespace(**options, dataset="mnist"))
    assert all(isinstance(word, str) for word in about.values())
    tl.save(tmp_path / f"w.{kind}", model, about)
    found, mean, std = predict.load(tmp_path / f"w.{kind}")
    assert (mean, std) == (data.MNIST.mean, data.MNIST.std)
    x = tl.tensor(predict.digit(seven)[None, None])
    np.testing.assert_array_equal(found(x).numpy(), model(x).numpy())


def test_weights_of_clothes_do_not_read_digits(predict, seven, tmp_path, capfd):
    description = pytest.importorskip("lenet_mnist", reason="matplotlib and tqdm").description
    about = description(argparse.Namespace(activation="relu", pool="max", batch_norm=False, dataset="fashion"))
    assert (about["dataset"], about["mean"]) == ("FashionMNIST", str(data.FashionMNIST.mean))
    tl.save(tmp_path / "w.npz", nn.LeNet5(generator=0), about)
    message = refused(predict, capfd, tmp_path / "w.npz", seven)
    assert "w.npz is trained on 'FashionMNIST', expected weights that read digits" in message
    tl.save(tmp_path / "w.npz", nn.LeNet5(generator=0), {**about, "classes": ABOUT.get("classes", predict.CLASSES)})
    _, mean, std = predict.load(tmp_path / "w.npz")
    assert (mean, std) == (data.FashionMNIST.mean, data.FashionMNIST.std)


def test_weights_of_1998(predict, mnist, seven, tmp_path, capfd):
    model = predict.LeNet5Classic(generator=0)
    image = predict.digit(seven)
    expected = model(model.prepare(image[None, None])).softmax(1).numpy()[0]
    for about in (None, {"model": "LeNet5Classic", "dataset": "MNIST", "classes": predict.CLASSES}):
        tl.save(tmp_path / "w.npz", model, about)
        np.testing.assert_array_equal(predict.probabilities(*predict.load(tmp_path / "w.npz"), image), expected)
        message = refused(predict, capfd, tmp_path / "w.npz", seven, "--activation", "tanh")
        assert "is of the network of 1998, which has no option --activation; leave it out" in message


def changed(state, name, *values):
    state[name] = state[name].copy()
    state[name].flat[: len(values)] = values
    return state


MANY = "x" * 9000
BAD = {
    "NaN": (lambda s: changed(s, "conv1.weight", np.nan), {}, "weights that are NaN or infinite, in 'conv1.weight'"),
    "infinite": (lambda s: changed(s, "fc3.bias", np.inf), {}, "weights that are NaN or infinite, in 'fc3.bias'"),
    "huge": (
        lambda s: {n: a * np.float32(1e30) for n, a in s.items()},
        {"activation": "relu"},
        "so large that the output is not finite",
    ),
    "shape": (lambda s: {**s, "fc3.bias": np.zeros(9, np.float32)}, {}, "other weights than those of a LeNet-5"),
    "missing": (lambda s: {"fc3.bias": s["fc3.bias"]}, {}, "other weights than those of a LeNet-5"),
    "empty": (lambda s: {}, {}, "other weights than those of a LeNet-5"),
    "one more": (lambda s: {**s, MANY: np.zeros(3)}, {}, "other weights than those of a LeNet-5"),
    "other network": (lambda s: s, {"model": "ResNet" + MANY}, "the model is 'ResNet"),
    "1998": (lambda s: s, {"model": "LeNet5Classic"}, "other weights than those of a LeNet-5"),
    "batch norm": (lambda s: s, {"batch_norm": "True"}, "other weights than those of a LeNet-5"),
    "activation": (lambda s: s, {"activation": MANY}, "activation must be 'relu'"),
    "pool": (lambda s: s, {"pool": "\033[2J"}, "pool must be 'max' or 'avg'"),
    "classes": (lambda s: s, {"classes": "1, 0", "dataset": MANY}, "expected weights that read digits"),
    "mean": (lambda s: s, {"mean": "some"}, "not as lenet_mnist.py writes it"),
    "mean NaN": (lambda s: s, {"mean": "nan"}, "not as lenet_mnist.py writes it"),
    "std": (lambda s: s, {"std": "0"}, "not as lenet_mnist.py writes it"),
    "long": (lambda s: s, {"std": "1" * 9000}, "not as lenet_mnist.py writes it"),
}


@pytest.mark.parametrize("name", BAD)
def test_other_weights_are_refused_with_a_sentence(predict, trained, seven, tmp_path, capfd, name):
    change, about, words = BAD[name]
    tl.save(tmp_path / "w.npz", change(tl.load(trained)), {**ABOUT, **about})
    message = refused(predict, capfd, tmp_path / "w.npz", seven)
    assert f"{tmp_path / 'w.npz'} " in message
    assert words in message
    assert message.isprintable()


def test_a_file_that_holds_no_weights_is_refused(predict, trained, seven, tmp_path, capfd):
    for path in (EXAMPLES / "predict.py", seven, tmp_path, tmp_path / "none.npz"):
        assert "holds no weights; train some" in refused(predict, capfd, path, seven)
    whole = trained.read_bytes()
    for cut in (1, 30, len(whole) - 100):  # in the description, and before
        path = written(tmp_path / "w.npz", whole[:-cut])
        assert "holds no weights; train some" in refused(predict, capfd, path, seven)
