"""A notebook and a console show an object that is the last expression of a cell."""

import base64
import copy
import html
import io
import pickle
import re

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, optim, training, visualize

matplotlib = pytest.importorskip("matplotlib")

MODEL = nn.Sequential(nn.Conv2d(1, 2, 3, generator=0), nn.ReLU())
IMAGES = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)
HISTORY = [{"epoch": 1, "train_loss": 0.5, "test_accuracy": 0.9}]
FIGURES = {
    "curves": lambda: visualize.curves(HISTORY),
    "confusion": lambda: visualize.confusion([[5, 1], [0, 4]], ["cat", "dog"]),
    "mistakes": lambda: visualize.mistakes(IMAGES, [0, 0, 0], [[0, 1], [1, 0], [0, 2]], ["cat", "dog"]),
    "tiles": lambda: visualize.tiles(IMAGES[:, 0], "three"),
    "kernels": lambda: visualize.kernels(MODEL[0].weight),
    "feature_maps": lambda: visualize.feature_maps(MODEL, IMAGES)[0],
}


def pixels(png):
    return matplotlib.image.imread(io.BytesIO(png), format="png")


def saved(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return pixels(buffer.getvalue())


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_shows_a_figure_and_leaves_it_as_it_was(name):
    figure = FIGURES[name]()
    assert isinstance(figure, matplotlib.figure.Figure)
    canvas, dpi, size = figure.canvas, figure.dpi, figure.get_size_inches().tolist()
    shown = pixels(figure._repr_png_())
    assert shown.shape[:2] == tuple(np.int64([size[1] * 100, size[0] * 100]))
    assert shown.std() > 0  # not a blank page
    np.testing.assert_array_equal(shown, saved(FIGURES[name]()))
    assert (figure.canvas, figure.dpi, figure.get_size_inches().tolist()) == (canvas, dpi, size)


def test_copies_of_a_figure_show_themselves():
    figure = FIGURES["curves"]()
    for twin in (pickle.loads(pickle.dumps(figure)), copy.deepcopy(figure)):
        np.testing.assert_array_equal(pixels(twin._repr_png_()), saved(FIGURES["curves"]()))
        twin.suptitle("another title")
        assert (pixels(twin._repr_png_()) != pixels(figure._repr_png_())).any()


def test_feature_maps_are_a_list_that_shows_every_figure():
    figures = visualize.feature_maps(MODEL, IMAGES)
    assert isinstance(figures, list)
    fresh = visualize.feature_maps(MODEL, IMAGES)
    shown = re.findall(r'<img [^>]*src="data:image/png;base64,([A-Za-z0-9+/=]+)">', figures._repr_html_())
    assert len(shown) == len(figures) == 3
    for png, figure in zip(shown, fresh, strict=True):
        np.testing.assert_array_equal(pixels(base64.b64decode(png)), saved(figure))
    assert visualize.html_report("Maps", [("Maps", figures)]).count("<img ") == 3


def test_a_report_shows_in_a_frame_of_its_own():
    page = visualize.html_report("Run <1>", [("Kernels", FIGURES["kernels"]()), ("Words", "a & b")])
    assert isinstance(page, str)
    (inside,) = re.findall(r'^<iframe [^>]*srcdoc="([^"]*)"></iframe>$', page._repr_html_())
    assert html.unescape(inside) == page
    assert pickle.loads(pickle.dumps(page)) == page


def test_drawings_of_a_graph_are_readable():
    view = visualize.graph(MODEL(IMAGES).sum())
    assert repr(view) == "GraphView(5 nodes; save('graph.svg') writes a picture)"
    assert isinstance(view.svg(), str)
    assert repr(view.svg()) == str(view.svg())
    assert view._repr_svg_().startswith("<svg ")


def test_a_table_can_be_used_as_any_string(tmp_path):
    table = nn.summary(MODEL, (1, 1, 8, 8))
    assert repr(table) == table
    (tmp_path / "table.txt").write_text(table)
    assert (tmp_path / "table.txt").read_text() == table == pickle.loads(pickle.dumps(table)) == copy.copy(table)
    assert table + "\n" == f"{table}\n"


LOADER = data.DataLoader((np.eye(3, dtype=np.float32), np.arange(3)))
ADAM = optim.Adam(MODEL.parameters())
OBJECTS = {
    "Adam": (ADAM, "Adam(lr=0.001"),
    "StepLR": (optim.StepLR(ADAM, 2), "StepLR(optimizer=Adam("),
    "SequentialLR": (optim.SequentialLR(ADAM, [optim.StepLR(ADAM, 2)] * 2, [3]), "SequentialLR(optimizer=Adam("),
    "ReduceLROnPlateau": (optim.ReduceLROnPlateau(ADAM), "ReduceLROnPlateau(optimizer=Adam("),
    "OneCycleLR": (optim.OneCycleLR(optim.SGD(MODEL.parameters()), 1.0, 10), "OneCycleLR(optimizer=SGD("),
    "EarlyStopping": (training.EarlyStopping(3), "EarlyStopping(patience=3, best=-inf in epoch 0)"),
    "average": (training.ExponentialMovingAverage(MODEL), "ExponentialMovingAverage(decay=0.999, 0 steps)"),
    "Evaluation": (training.Evaluation(0.5, 1.0, np.eye(2), np.arange(2)), "Evaluation(loss=0.5, accuracy=1.0)"),
    "DataLoader": (LOADER, "DataLoader(3 samples, batch_size=64"),
    "Subset": (data.Subset(np.arange(3), [0]), "Subset(1 of 3 samples)"),
    "Compose": (
        data.Compose([data.ElasticDistortion(2)]),
        "Compose(transforms=[ElasticDistortion(alpha=2.0, sigma=4.0)])",
    ),
    "module": (MODEL[0], "Conv2d(1, 2, kernel_size=(3, 3))"),
    "tensor": (tl.ones(2), "tensor([1., 1.])"),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_the_repr_of_what_users_evaluate_says_what_it_is(name):
    found, start = OBJECTS[name]
    assert repr(found).startswith(start)
    assert " object at 0x" not in repr(found)
    assert len(repr(found)) < 1000


def test_recorded_calls_show_no_arrays():
    with nn.record_calls(MODEL) as calls:
        MODEL(IMAGES)
    assert repr(calls[0]) == "Call(name='0', module=Conv2d(1, 2, kernel_size=(3, 3))  # 20 parameters)"


def test_curves_of_one_epoch_have_whole_epochs():
    figure = visualize.curves(HISTORY)
    figure._repr_png_()
    low, high = figure.axes[0].get_xlim()
    assert [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high] == [1]
