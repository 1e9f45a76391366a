"""Accuracy of the ops that are gradients of normalisation and of the softmax; see ``accuracy.py``."""

import numpy as np
from accuracy_arrays import EPS, LOGITS, soft, softmax_truth
from ulps import matrix_row, mp, some

from tinygrad_lenet.ops import normalization, softmax

soft("_softmax", softmax_truth, LOGITS, call=lambda x: softmax._softmax(x, -1), bounds=(4, 4), sums="b")


def standard(x):
    d = x - x.sum(0) / len(x)
    return d / np.frompyfunc(mp.sqrt, 1, 1)((d * d).sum(0) / len(x) + EPS), d


def normalize_x_truth(g, x, weight):
    s, d = standard(x)
    factor = 1 / np.frompyfunc(mp.sqrt, 1, 1)((d * d).sum(0) / len(x) + EPS)
    return weight * factor * (g - g.sum(0) / len(x) - s * (g * s).sum(0) / len(x))


SLOPES, CHANNELS = some(6, 2), some(6, 2, offset=10, scale=0.5)
matrix_row(
    "normalisation",
    "normalize_x",
    lambda g, x, w: normalization._normalize_x(g, x, w, 1e-5, None),
    normalize_x_truth,
    SLOPES,
    CHANNELS,
    some(2),
    bounds=(8, 8),
)
matrix_row(
    "normalisation",
    "normalize_weight",
    lambda g, x: normalization._normalize_weight(g, x, 1e-5, None),
    lambda g, x: (g * standard(x)[0]).sum(0),
    SLOPES,
    CHANNELS,
    bounds=(8, 8),
)


def nll_grad_truth(g, x):
    e = np.frompyfunc(mp.exp, 1, 1)(x)
    return g[:, None] * (e / e.sum(1)[:, None] - np.eye(4)[[2, 0, 2]])


matrix_row(
    "softmax, losses",
    "softmax_nll_grad",
    lambda g, x: softmax._softmax_nll_grad(g, x, np.array([2, 0, 2]), None),
    nll_grad_truth,
    some(3),
    some(3, 4),
    bounds=(8, 8),
)
