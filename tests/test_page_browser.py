"""The page in a real browser: drawn on with a pointer and with keys, looked at in three sizes."""

import math
from itertools import pairwise

import numpy as np
import pytest
from browser import BROWSER, DRIVER, browser

import tinygrad_lenet as tl
from tinygrad_lenet import nn, visualize

missing = [name for name, found in (("chromium", BROWSER), ("chromedriver", DRIVER)) if not found]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"{' and '.join(missing)} not installed, which open the page")


def arc(x, y, radius, start, end, tall=None, count=12):
    """Points of an arc, in pixels of a drawing 280 wide; angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, end, count))
    return [(x + radius * math.cos(a), y + (tall or radius) * math.sin(a)) for a in angles]


def line(*corners):
    """Points of a line through corners."""
    points = [np.linspace(a, b, 4) for a, b in pairwise(corners)]
    return np.concatenate(points).tolist()


THREE = [arc(138, 95, 45, -160, 80) + arc(138, 180, 52, -85, 150)]
HANDS = [  # a digit, and its strokes
    (0, [arc(140, 140, 50, -90, 270, 80)]),
    (1, [line((110, 100), (150, 60), (150, 220)), line((110, 220), (190, 220))]),
    (2, [arc(140, 100, 45, -170, 40) + line((175, 130), (90, 215), (195, 215))]),
    (3, THREE),
    (3, [line((95, 60), (180, 60), (130, 120)) + arc(135, 170, 52, -80, 150)]),
    (4, [line((165, 60), (85, 170), (200, 170)), line((165, 60), (165, 230))]),
    (5, [line((185, 60), (110, 60), (105, 130)) + arc(135, 170, 50, -120, 140)]),
    (6, [arc(180, 130, 85, -110, -180) + arc(140, 170, 45, 180, -180)]),
    (7, [line((90, 65), (190, 65), (125, 225)), line((110, 145), (180, 145))]),
    (8, [arc(140, 95, 38, 90, 450) + arc(140, 175, 45, -90, 270)]),
    (9, [arc(140, 105, 42, 0, -360) + line((182, 105), (175, 225))]),
]


@pytest.fixture(scope="module")
def lenet(tmp_path_factory):
    """The page of the trained LeNet-5, with an untrained one as a snapshot."""
    predict = pytest.importorskip("predict")
    model, mean, std = predict.load(predict.Path(predict.__file__).with_name("lenet5.npz"))
    path = tmp_path_factory.mktemp("page") / "lenet.html"
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (3, 28, 28)).astype(np.uint8), [7, 0, 4]
    history = {"epoch 0": nn.LeNet5(generator=0).state_dict()}
    visualize.page(model, path, "LeNet-5", examples=(images, labels), history=history, mean=mean, std=std)
    return path


@pytest.fixture(scope="module")
def window():
    with browser() as found:
        yield found


@pytest.fixture
def page(window, lenet):
    """The page, as wide as a desk's screen."""
    window.emulate(1280, 1000)
    window.open(lenet)
    yield window
    assert window.messages() == []


def draw(page, strokes, kind="mouse"):
    left, top, scale = page.run("const box = pad.getBoundingClientRect(); return [box.left, box.top, box.width / 280]")
    page.pointer([[(left + x * scale, top + y * scale) for x, y in points] for points in strokes], kind)
    page.run("redraw()")  # a browser may wait for its next frame


def corner(page, element, x, y):
    """A point of the view, in pixels from the corner of an element."""
    left, top = page.run(f"const box = {element}.getBoundingClientRect(); return [box.left, box.top]")
    return left + x, top + y


def longest(page):
    """The class with the longest bar."""
    widths = page.run("return [...document.querySelectorAll('.fill')].map(bar => parseFloat(bar.style.width))")
    return int(np.argmax(widths)) if max(widths) else None


def text(page, name):
    return page.run("return document.getElementById(arguments[0]).innerText", name)


@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_a_3_that_is_drawn_has_the_longest_bar(page, kind):
    assert longest(page) is None
    draw(page, THREE, kind)
    assert longest(page) == 3
    assert text(page, "answer-title") == "The answer: 3"


def test_eleven_handwritings_are_read(page):
    for digit, strokes in HANDS:
        page.run("clear()")
        draw(page, strokes)
        assert longest(page) == digit


def test_the_keys_draw_a_1_undo_it_and_go_through_the_units_of_a_layer(page):
    page.run("pad.focus()")
    page.keys(" ", *["Down"] * 14, " ")
    assert longest(page) == 1
    page.keys("\ue003")
    assert longest(page) is None
    page.run("views[1].canvas.focus()")
    page.keys("Down", "Right", "Right", "\ue00f")
    assert "conv1[1, 1, 2]" in text(page, "unit")


def test_a_unit_shows_window_kernel_and_a_sum_that_is_right(page):
    draw(page, THREE)
    page.hover(*corner(page, "views[4].canvas", 30, 30))
    shown = text(page, "unit")
    assert shown.startswith("conv2[0, ")
    grids = page.run(
        "return [...document.querySelectorAll('#unit .cells')].map(g => [...g.children].map(c => c.textContent))"
    )
    numbers = np.array([[float(cell.replace("\u2212", "-")) for cell in grid] for grid in grids]).reshape(6, 2, 25)
    bias = float(shown.partition("The bias is ")[2].split("\n")[0].rstrip(".").replace("\u2212", "-"))
    value = page.run("return values[4][state.selected.unit]")
    assert numbers.prod(1).sum() + bias == pytest.approx(value, abs=0.3)  # of numbers with two decimals
    assert numbers[:, 0].any()


def test_a_unit_that_is_clicked_stays_and_its_kernel_can_be_switched_off_and_on(page):
    draw(page, THREE)
    page.hover(*corner(page, "views[1].canvas", 100, 20), click=True)  # on the second map
    page.hover(*corner(page, "views[4].canvas", 30, 30))  # on the way to the switch
    assert "Kernel 1 of conv1 is on" in text(page, "unit")
    page.hover(*corner(page, "document.querySelector('#unit input')", 5, 5), click=True)
    assert not any(page.run("return Array.from(values[1].slice(784, 1568))"))
    assert "conv1[1]" in text(page, "silenced")
    page.run("document.getElementById('restore').click()")
    assert any(page.run("return Array.from(values[1].slice(784, 1568))"))


def test_steps_of_the_gradient_confuse_the_network_and_can_be_taken_back(page):
    draw(page, THREE)
    page.run("document.querySelectorAll('#bars input')[8].click()")
    assert "speaks for 8" in text(page, "saliency-note")
    assert page.run("return glow.getImageData(0, 0, 280, 280).data.some(v => v)")
    for _ in range(15):
        page.run("document.getElementById('confuse').click()")
    assert longest(page) == 8
    page.run("document.getElementById('unconfuse').click()")
    assert longest(page) == 3


def test_the_experiments_change_the_answer(page):
    draw(page, THREE)
    before = page.run("return probabilities")
    for change in ("noise.value = 150", "snapshots.value = 0", "activations.click()", "centring.click()"):
        page.run(
            f"for (const id of ['noise', 'snapshots', 'activations', 'centring']) window[id] = $(id); {change}; "
            "setWeights(); update()"
        )
        assert page.run("return probabilities") != before, change
        before = page.run("return probabilities")
    assert text(page, "snapshot") == "epoch 0"


def test_the_examples_are_shown_as_they_are(page):
    page.run("$('next').click()")
    assert text(page, "example") == "1 of 3, labelled 7"
    page.run("$('previous').click()")
    assert text(page, "example") == "3 of 3, labelled 4"
    assert page.run("return Array.from(image)") == page.run("return Array.from(examplePixels())")


def luminance(colour):
    """The relative luminance of red, green and blue from 0 to 255, after WCAG 2."""
    return np.where((c := np.array(colour) / 255) > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


def contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (800, False), (390, False), (390, True)])
def test_the_page_fits_each_width_and_has_readable_colours(page, tmp_path, width, dark):
    page.emulate(width, 844, dark)
    draw(page, THREE)
    page.run("select(4, 0)")
    assert page.run("return document.documentElement.scrollWidth") <= width
    palette = {name: luminance(colour) for name, colour in page.run("palette = colours(); return palette").items()}
    assert (palette["ink"] > palette["paper"]) == dark
    for name in ("ink", "muted", "positive", "negative", "mark"):  # 4.5 is what WCAG asks for text
        assert contrast(palette[name], palette["paper"]) >= 4.5, name
    page.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes()[:4] == b"\x89PNG"
    elements = "[...document.querySelectorAll('button, canvas, label, .cells')].filter(e => e.getClientRects().length)"
    outside = page.run(
        f"return {elements}.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.id)"
    )
    assert outside == []


def test_every_control_has_a_name_for_a_screen_reader(page):
    nodes = page.ask("/goog/cdp/execute", {"cmd": "Accessibility.getFullAXTree", "params": {}})["nodes"]
    controls = [
        n for n in nodes if n.get("role", {}).get("value") in ("button", "checkbox", "radio", "slider", "application")
    ]
    assert len(controls) > 30
    assert [n for n in controls if not n.get("name", {}).get("value")] == []


EVIL = '</script><img src="x" onerror="document.title=1"><script>'


def test_labels_with_markup_are_text(window, tmp_path):
    model = nn.Sequential({"<img onerror=alert(1)>": nn.Flatten(), "b": nn.Linear(784, 2, generator=0)})
    visualize.page(model, tmp_path / "evil.html", title=EVIL, classes=[EVIL, "b"])
    window.open(tmp_path / "evil.html")
    draw(window, THREE)
    window.run("select(2, 0)")
    assert window.run("return document.title") == EVIL
    assert window.run("return document.querySelectorAll('img').length") == 0
    assert EVIL in window.run("return document.getElementById('bars').textContent")
    assert window.messages() == []


def test_a_network_of_all_kinds_of_layers_is_shown_and_each_unit_explained(window, tmp_path):
    layers = [nn.Conv2d(1, 4, 3, generator=0), nn.BatchNorm2d(4), nn.SELU(), nn.AvgPool2d(3, padding=1), nn.Dropout()]
    layers += [nn.Conv2d(4, 12, 3, groups=2, generator=0), nn.ELU(), nn.MaxPool2d(2, ceil_mode=True), nn.Flatten()]
    layers += [nn.Linear(192, 30, generator=0), nn.BatchNorm1d(30), nn.Sigmoid(), nn.Linear(30, 3, generator=0)]
    model = nn.Sequential(*layers)
    visualize.page(model, tmp_path / "all.html", classes=["cat", "dog", "a long name of a class that is long"])
    window.emulate(390, 844)
    window.open(tmp_path / "all.html")
    draw(window, THREE)
    explained = window.run("return views.map(v => { select(v.index, v.count - 1); return $('unit').textContent })")
    assert all("=" in shown for shown in explained)
    assert not any("NaN" in shown or "undefined" in shown for shown in explained)
    logits = window.run("return [Array.from(image), Array.from(values[values.length - 1])]")
    image = (tl.tensor(np.float32(logits[0]).reshape(1, 1, 28, 28)) - tl.data.MNIST.mean) / tl.data.MNIST.std
    np.testing.assert_allclose(logits[1], model.eval()(image).detach().numpy()[0], rtol=1e-4, atol=1e-4)
    assert window.run("return document.documentElement.scrollWidth") <= 390
    assert window.messages() == []
