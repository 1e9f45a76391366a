"""An op of your own: the squared distances between two sets of points."""

import numpy as np

import tinygrad_lenet as tl


def differences(x, y):
    """``x_i - y_j`` for all rows of x, of shape (N, D), and of y, (M, D); the result has shape (N, M, D)."""
    return x[:, None, :] - y[None, :, :]


# The body computes the op with NumPy. It must not write to its arguments, which may be in use elsewhere.
@tl.primitive
def squared_distances(x: tl.Array, y: tl.Array) -> tl.Array:
    """``|x_i - y_j|^2`` for all rows of x, of shape (N, D), and of y, (M, D); the result has shape (N, M)."""
    # Without this check, D = 1 and D = 3 would broadcast to a result that means nothing.
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise tl.ShapeError(f"the points must have shapes (N, D) and (M, D), got {x.shape} and {y.shape}")
    return np.sum(differences(x, y) ** 2, axis=2)


# One rule for each argument. `g` is the gradient of the result: g[i, j] says how much the loss changes with element
# (i, j). The derivative of |x_i - y_j|^2 with respect to x_i is 2 (x_i - y_j), and x_i occurs in all elements of row i.
# So the gradient of x_i is the sum of g[i, j] * 2 (x_i - y_j) over j.
#
# A rule gets NumPy arrays, and Tensors if its result is to be differentiated again. Operators, indexing and functions
# of the package take both: write tl.sum(d, axis=1), and neither d.sum(dim=1) nor np.add.reduce(d, axis=1).
squared_distances.vjp(
    x=lambda g, x, y: tl.sum(g[:, :, None] * 2 * differences(x, y), axis=1),
    y=lambda g, x, y: tl.sum(g[:, :, None] * -2 * differences(x, y), axis=0),
)
