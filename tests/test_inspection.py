"""The table of a model, and how the error of a layer names it."""

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.errors import ShapeError


class Own(nn.Module):
    """A module of the user's, with a parameter and a function of it."""

    def __init__(self, function, *shape):
        super().__init__()
        self.weight = nn.Parameter(np.ones(shape, np.float32)) if shape else None
        self.function = function

    def forward(self, x):
        return self.function(x) if self.weight is None else self.function(x, self.weight)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers_show_each_output(kind):
    model = kind(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    assert "(2, 5, 8), (4, 2, 4)" in nn.summary(model, (2, 5, 3))


def test_the_table_is_a_string_that_a_console_shows():
    table = nn.summary(nn.Sequential(nn.Linear(4, 3)), (1, 4))
    assert isinstance(table, str)
    assert repr(table) == str(table) == f"{table}" == table
    assert table.splitlines()[0].startswith("layer ")


# Errors that name the layer


def test_a_wrong_size_after_flatten_names_the_layer_and_where_it_is():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential({"flat": nn.Flatten(), "fc": nn.Linear(401, 10)}))
    with pytest.raises(ShapeError) as caught:
        model(tl.zeros(2, 1, 12, 12))
    assert str(caught.value) == (
        "Linear(401, 10): expected x (..., 401) and a weight (out_features, 401), got (2, 400) and (10, 401)"
    )
    assert caught.value.__notes__ == ["in layer fc of Sequential", "in layer 1 of Sequential"]


ONE = np.ones((1, 1, 2, 2), np.float32)
WRONG = [
    (nn.Linear(3, 2, bias=False), ONE),
    (nn.Conv2d(1, 6, 5), ONE),
    (nn.Conv2d(2, 6, 5), ONE),
    (nn.Conv1d(1, 6, 5), ONE[0]),
    (nn.ConvTranspose2d(1, 6, 1, padding=3), ONE),
    (nn.MaxPool2d(3, stride=2), ONE),
    (nn.MaxPool2d(2), ONE[0, 0]),
    (nn.AvgPool1d(2), ONE),
    (nn.AdaptiveAvgPool2d(2), ONE[0, 0]),
    (nn.Upsample(scale_factor=2), ONE[0, 0]),
    (nn.BatchNorm2d(4), ONE),
    (nn.LayerNorm(4), ONE),
    (nn.GroupNorm(2, 4), ONE),
    (nn.Embedding(3, 2), [5]),
    (nn.Dropout2d(0.5), ONE[0]),
    (nn.Unflatten(1, (2, 3)), ONE),
    (nn.ReflectionPad2d(3), ONE),
    (nn.GRU(3, 4, batch_first=True), ONE[0]),
    (nn.Softmax(5), ONE),
]


@pytest.mark.parametrize(("layer", "x"), WRONG)
def test_each_layer_names_itself_with_its_options(layer, x):
    named = f"{type(layer).__name__}({layer.extra_repr()}): "
    for model in (layer, nn.Sequential(layer), Own(lambda x: layer(x))):
        with pytest.raises(tl.TinygradLenetError) as caught:
            model(x)
        assert str(caught.value).startswith(named)


def test_errors_of_the_user_s_code_keep_their_words():
    model = nn.Sequential(nn.Identity(), Own(lambda x: x @ tl.ones(5, 5)))
    with pytest.raises(ShapeError, match=r"^matmul: "):
        model(tl.ones(2, 2))

    class Wider(nn.Linear):
        def forward(self, x):
            return super().forward(x)

    with pytest.raises(ShapeError, match=r"^linear: expected x \(..., 2\) .*, got \(4,\) and"):
        Wider(2, 3)(tl.ones(4))
    layer = nn.Linear(2, 3)
    layer.bias = nn.Parameter(tl.ones(4))  # the input is right
    with pytest.raises(ShapeError, match=r"^Linear\(2, 3\): .* needs a bias of shape \(3,\), got \(4,\)"):
        layer(tl.ones(2))
    with pytest.raises(ZeroDivisionError) as caught:
        nn.Sequential(Own(lambda x: 1 / 0))(1)
    assert caught.value.__notes__ == ["in layer 0 of Sequential"]
