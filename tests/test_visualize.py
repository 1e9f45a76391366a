"""The content of pictures."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet import nn, visualize
from tinygrad_lenet.errors import ArgumentError, ShapeError

pytest.importorskip("matplotlib")
RNG = np.random.default_rng


def test_curves_show_what_was_measured_and_nothing_else():
    history = [
        {
            "epoch": i,
            "train_loss": 1 / i,
            "train_accuracy": 0.5,
            "validation_loss": 2 / i,
            "validation_accuracy": i / 10,
        }
        for i in (1, 2, 3)
    ]
    loss, accuracy = visualize.curves(history, "title").axes
    np.testing.assert_allclose([line.get_ydata() for line in loss.lines], [[1, 1 / 2, 1 / 3], [2, 1, 2 / 3]])
    np.testing.assert_allclose(accuracy.lines[1].get_ydata(), [10, 20, 30])
    words = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert words == ["train, last 50.00 %", "validation, last 30.00 %"]
    assert all(float(tick).is_integer() for tick in accuracy.get_xticks())


QUANTITIES = {"loss": 1, "accuracy": 100}
PARTS = {"train": "--", "test": "-", "validation": ":"}
KEYS = [f"{part}_{quantity}" for part in PARTS for quantity in QUANTITIES]
VALUES = st.floats(0, 5, allow_subnormal=False) | st.sampled_from([0.0, math.inf, -math.inf, math.nan, 1e30])


def rows(along):
    row = st.dictionaries(st.sampled_from(KEYS), VALUES)
    return st.lists(row, max_size=8).map(lambda found: [{along: 3 * i + 1, **row} for i, row in enumerate(found)])


def runs_of(along):
    return st.tuples(st.just(along), rows(along) | st.dictionaries(st.sampled_from(["SGD", "{0}", 0.1]), rows(along)))


def measured(history, quantity):
    """The points of each line of a quantity, by the name of the run and the part: a second statement of the rules."""
    runs = history if isinstance(history, dict) else {"": history}
    lines = {}
    for name, run in runs.items():
        for part in PARTS:
            key = f"{part}_{quantity}"
            points = [(next(iter(row.values())), QUANTITIES[quantity] * row[key]) for row in run if key in row]
            if points:
                lines[f"{name} {part}".strip()] = np.array(points)
    return lines


@given(st.sampled_from(["epoch", "step"]).flatmap(runs_of))
def test_every_line_is_a_part_of_a_run_and_has_its_values(drawn):
    along, history = drawn
    figure = visualize.curves(history)
    expected = {quantity: measured(history, quantity) for quantity in QUANTITIES}
    shown = [lines for lines in expected.values() if lines] or [{}, {}]
    assert len(figure.axes) == len(shown)
    for axes, lines in zip(figure.axes, shown, strict=True):
        assert not lines or axes.get_xlabel() == along
        found = {line.get_label().partition(", last ")[0]: line for line in axes.lines}
        assert found.keys() == lines.keys()
        for name, points in lines.items():
            np.testing.assert_array_equal(found[name].get_xydata(), points)
        parts = {name.split()[-1] for name in lines}
        for name, line in found.items():
            assert line.get_linestyle() == (PARTS[name.split()[-1]] if len(parts) > 1 else "-")
        groups = {}
        for name, line in found.items():
            groups.setdefault(name.split()[0], set()).add(line.get_color())
        colours = list(groups.values())
        assert all(len(own) == 1 for own in colours)
        assert len({colour for own in colours for colour in own}) == len(colours)


def noisy(count, seed=0):
    return [{"step": i, "train_loss": RNG(seed + i).lognormal()} for i in range(count)]


@pytest.mark.parametrize("count", [120, 121, 1000])
def test_many_values_are_drawn_faintly_below_their_means(count):
    history = noisy(count)
    losses = np.array([row["train_loss"] for row in history])
    *raw, line = visualize.curves({"run": history}).axes[0].lines
    if count <= 120:
        np.testing.assert_array_equal(line.get_ydata(), losses)
        assert not raw
        return
    np.testing.assert_array_equal(raw[0].get_ydata(), losses)
    assert raw[0].get_color() == line.get_color()
    assert raw[0].get_alpha() < 0.5
    means = [part.mean() for part in np.array_split(losses, 40)]
    np.testing.assert_allclose(line.get_ydata(), means)
    np.testing.assert_allclose(line.get_xdata(), [part.mean() for part in np.array_split(np.arange(count), 40)])
    assert line.get_label() == f"run train, last {means[-1]:.3g}"


def test_a_loss_that_became_nan_ends_its_line_and_says_so():
    history = noisy(300)
    for row in history[200:]:
        row["train_loss"] = math.nan
    raw, line = visualize.curves(history).axes[0].lines
    assert np.isnan(raw.get_ydata()[200:]).all()
    assert max(line.get_xdata()) < 200
    assert np.isfinite(line.get_ydata()).all()
    assert line.get_label() == "train, last nan"


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([1.0, 0.1, math.nan, math.inf], "log"),
        ([1.0, 0.0], "log"),
        ([1.0, 1e-30], "log"),
        ([2.301, 2.302], "log"),
        ([1e38, 1e-38], "log"),
        ([1.0, -0.1], "linear"),
        ([0.0, 0.0], "linear"),
        ([math.nan, math.inf], "linear"),
    ],
)
def test_losses_have_a_logarithmic_scale_with_ticks_that_are_numbers(losses, scale):
    (axes,) = visualize.curves([{"epoch": i, "train_loss": loss} for i, loss in enumerate(losses)]).axes
    assert axes.get_yscale() == scale
    axes.figure._repr_png_()  # without a warning: one is an error here
    low, high = axes.get_ylim()
    ticks = [label.get_text() for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert len(ticks) > 1
    assert [float(tick.replace("\N{MINUS SIGN}", "-")) for tick in ticks] == sorted(
        float(tick.replace("\N{MINUS SIGN}", "-")) for tick in ticks
    )


@pytest.mark.parametrize("count", [1, 2, 6])
def test_the_legend_is_below_the_lines_and_within_the_picture(count):
    names = ["sgd", "momentum", "rmsprop", "adam", "adamw", "a name of thirty-six letters or more"][-count:]
    runs = {
        name: [{"step": i, "train_loss": 1 / i, "test_loss": 2 / i, "test_accuracy": 0.5} for i in range(1, 5)]
        for name in names
    }
    figure = visualize.curves(runs, "title")
    figure._repr_png_()
    left = 0
    for axes in figure.axes:
        words = [text.get_window_extent() for text in axes.get_legend().get_texts()]
        assert len(words) == count * (2 if axes is figure.axes[0] else 1)
        assert max(box.y1 for box in words) < axes.xaxis.label.get_window_extent().y0
        assert min(box.y0 for box in words) > 0
        assert left < axes.get_legend().get_window_extent().x0
        left = axes.get_legend().get_window_extent().x1
        assert axes.get_window_extent().height > 200
    assert left < figure.bbox.x1


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (3, "history must be a list of rows, or a dict of runs, got 3"),
        ({"SGD": 3}, "history must be a list of rows, or a dict of runs, got 3"),
        ({"train_loss": [0.5, 0.4]}, "a dict with 'epoch', or each with 'step', got 0.5"),
        ([{"epoch": 1}, {"train_loss": 1}], r"got \{'train_loss': 1\}"),
        ({"a": [{"step": 1}], "b": [{"epoch": 1}]}, r"got \{'epoch': 1\}"),
        ([{"step": 1, "train_loss": "low"}], "train_loss in history must be a number, got 'low'"),
    ],
)
def test_rows_that_cannot_be_drawn_are_named(history, words):
    with pytest.raises(tl.DTypeError, match=f"^curves: .*{words}"):
        visualize.curves(history)


def test_the_confusion_matrix_shows_every_count():
    matrix = np.array([[5, 1], [0, 7]])
    (axes,) = visualize.confusion(matrix, ["cat", "dog"]).axes
    assert sorted(text.get_text() for text in axes.texts) == ["", "1", "5", "7"]
    assert axes.get_title() == "1 mistakes in 13"
    with pytest.raises(ShapeError, match=r"3 classes.*\(2, 2\)"):
        visualize.confusion(matrix, ["a", "b", "c"])


def test_the_worst_mistakes_come_first():
    logits = np.array([[9.0, 0, 0], [0, 5, 0], [3, 0, 0], [0, 0, 7]])
    images = np.arange(4.0).reshape(4, 1, 1, 1) * np.ones((1, 1, 2, 2))
    figure = visualize.mistakes(images, [0, 0, 1, 1], logits, "abc")
    shown = [axes for axes in figure.axes if axes.images]
    assert [int(axes.images[0].get_array()[0, 0]) for axes in shown] == [3, 1, 2]
    assert shown[0].get_title() == "b, taken for c\n(100% sure)"
    assert len([a for a in visualize.mistakes(images, [0, 0, 1, 1], logits, "abc", count=1).axes if a.images]) == 1
    assert visualize.mistakes(images, [0, 1, 0, 2], logits, "abc").get_suptitle() == "No mistakes"


def test_feature_maps_are_what_the_layers_gave():
    model, image = nn.LeNet5(generator=0), tl.tensor(RNG(0).standard_normal((1, 1, 28, 28)).astype(np.float32))
    figures = visualize.feature_maps(model, image)
    titles = [figure.get_suptitle() for figure in figures]
    assert titles[0] == "conv1: Conv2d, 6 x 28 x 28"
    assert titles[3] == "conv2: Conv2d, 16 x 10 x 10"
    assert len(titles) == 6
    expected = model.conv1(image).numpy()[0]
    for axes, wanted in zip(figures[0].axes, expected, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), wanted)


def test_kernels_are_drawn_on_one_scale_with_zero_in_the_middle():
    figure = visualize.kernels(np.array([[[[-1.0, 0.5]]], [[[0.25, 0.0]]]]))
    for axes in figure.axes[:2]:
        assert axes.images[0].get_clim() == (-1, 1)
    with pytest.raises(ShapeError, match=r"\(N, H, W\), got \(2, 2\)"):
        visualize.tiles(np.ones((2, 2)))


def test_a_report_escapes_words_and_needs_no_other_file():
    figure = visualize.kernels(np.ones((1, 1, 2, 2)))
    page = visualize.html_report("a < b", [("x & y", figure), ("text", "1 < 2"), ("two", [figure, "z"])])
    assert "<h1>a &lt; b</h1>" in page
    assert "<h2>x &amp; y</h2>" in page
    assert "<pre>1 &lt; 2</pre>" in page
    assert page.count('src="data:image/png;base64,') == 2
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert visualize.html_report("a < b", [], 5).count('<meta http-equiv="refresh" content="5">') == 1
    assert "refresh" not in page


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ArgumentError, match="pip install"):
        visualize.tiles(np.ones((1, 2, 2)))


# The graph


def lenet_view():
    model = nn.LeNet5(generator=0)
    loss = tl.cross_entropy(model(tl.randn(4, 1, 28, 28, generator=1)), [0, 1, 2, 3])
    return model, loss, visualize.graph(loss, model)


def test_a_graph_has_every_op_and_parameter_once_and_each_edge_goes_forward():
    model, _, view = lenet_view()
    ops = ["conv2d", "relu", "max_pool2d"] * 2 + ["reshape"] + ["linear", "relu"] * 2 + ["linear", "softmax_nll"]
    assert [n.title for n in view.nodes if n.leaf is None] == ops
    assert {n.title for n in view.nodes if n.kind == "parameter"} == {n for n, _ in model.named_parameters()}
    assert len(view.edges) == 12 + 10
    assert {b for _, b in view.edges} == {i for i, n in enumerate(view.nodes) if n.leaf is None}


def test_a_tensor_used_twice_has_two_edges_and_unnamed_ones_are_inputs():
    x = tl.ones(2, requires_grad=True)
    view = visualize.graph((x * x).sum())
    assert [(n.title, n.kind) for n in view.nodes] == [("input", "input"), ("mul", "op"), ("sum", "output")]
    assert view.edges == [(0, 1), (0, 1), (1, 2)]


def test_norms_of_gradients_are_shown_after_a_backward_pass():
    x = tl.tensor([3.0, 4.0], requires_grad=True)
    y = x * 2
    view = visualize.graph(y.sum())
    assert "gradient" not in view.svg()
    y.sum().backward(retain_graph=True)  # another graph, through the same node
    assert "|gradient| 1.41" in view.svg()  # of y: the root of 2
    assert "|gradient| 2.83" in view.svg()  # of x: the root of 8
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2])  # looking changes nothing


def test_the_picture_is_well_formed(tmp_path):
    from xml.etree import ElementTree

    _, loss, view = lenet_view()
    loss.backward()
    view.save(tmp_path / "g.svg")
    picture = ElementTree.parse(tmp_path / "g.svg").getroot()
    texts = [t.text for t in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("linear") == 3
    assert "16x6x5x5 float32" in texts
    assert (float(picture.get("width")), float(picture.get("height"))) < (600, 1200)  # one page
    assert len([*picture.iter("{http://www.w3.org/2000/svg}path")]) == len(view.edges) + 1  # and the arrow's head
    assert view._repr_svg_() == view.svg()
    with pytest.raises(tl.ArgumentError, match=r"must end in \.svg, got .*g\.png"):
        view.save(tmp_path / "g.png")


def test_no_graph_and_a_freed_graph_are_refused():
    with pytest.raises(tl.GradientError, match=r"no graph was recorded; .*requires_grad=True"):
        visualize.graph(tl.ones(2) * 2)
    loss = (tl.ones(2, requires_grad=True) * 2).sum()
    loss.backward()
    with pytest.raises(tl.GradientError, match="draw it before"):
        visualize.graph(loss)
