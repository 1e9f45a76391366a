"""PyTorch as a judge: outputs, first and second gradients of two graphs of the same arrays, side by side."""

import numpy as np

import tinygrad_lenet as tl

# Units in the last place of the largest element, or of 1: forward, first, second gradients.
ULPS = (16, 64, 512)


def listed(found):
    """The tensors of an output, which may be a tuple of tuples."""
    return [t for part in found for t in listed(part)] if isinstance(found, (tuple, list)) else [found]


def compare(ours, theirs, dtype, order, what, slack=0.0):
    """One tensor of each."""
    assert ours.shape == tuple(theirs.shape), what
    expected = theirs.detach().resolve_neg().numpy(force=True)
    if expected.dtype.kind != "f":
        assert ours.dtype.kind == expected.dtype.kind
        np.testing.assert_array_equal(ours.numpy(), expected, err_msg=what)
        return
    assert ours.dtype == dtype, what
    largest = np.max(np.abs(expected), initial=1.0, where=np.isfinite(expected))
    atol = (ULPS[order] * np.finfo(dtype).eps + slack * bool(order)) * largest
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=atol, err_msg=what)


def judge(torch, ours, theirs, arrays, dtype, seed=0, slack=0.0):
    """Two functions of the same arrays, and their derivatives in random directions; integers stay as they are."""
    arrays = [a.astype(dtype) if a.dtype.kind == "f" else a for a in arrays]
    xs = [tl.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    ts = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    judge_outputs(torch, ours(*xs), theirs(*ts), xs, ts, dtype, seed, slack)


def judge_outputs(torch, ys, us, xs, ts, dtype, seed=0, slack=0.0):
    """What came out of two graphs, ``ys`` of ``xs`` and ``us`` of ``ts``, and its derivatives."""
    rng = np.random.default_rng(seed)
    ys, us = listed(ys), listed(us)
    xs, ts = [x for x in xs if x.requires_grad], [t for t in ts if t.requires_grad]
    assert len(ys) == len(us)
    for order, what in enumerate(("value", "gradient", "second gradient")):
        for y, u in zip(ys, us, strict=True):
            compare(y, u, dtype, order, what, slack)
        pairs = [(y, u) for y, u in zip(ys, us, strict=True) if u.dtype.is_floating_point and u.requires_grad]
        if order == 2 or not pairs:
            return
        weights = [rng.standard_normal(u.shape).astype(dtype) for _, u in pairs]
        # What depends on nothing: zeros there, nothing here.
        mine = [(y, w) for (y, _), w in zip(pairs, weights, strict=True) if y.requires_grad]
        found = [None] * len(xs)
        if mine:
            found = tl.grad(
                [y for y, _ in mine], xs, [tl.tensor(w) for _, w in mine], create_graph=True, allow_unused=True
            )
        try:
            seeds = [torch.tensor(w) for w in weights]
            expected = torch.autograd.grad([u for _, u in pairs], ts, seeds, create_graph=True, allow_unused=True)
        except RuntimeError as error:
            if order == 1 and "not implemented" in str(error):  # PyTorch has no second derivative of a few
                return
            raise
        both = [(g, h) for g, h in zip(found, expected, strict=True) if not (g is None and h is None)]
        zero = [(tl.zeros(*h.shape, dtype=dtype) if g is None else g, h) for g, h in both if h is not None]
        assert all(not g.numpy().any() for g, h in both if h is None)
        ys, us = [g for g, _ in zero], [h for _, h in zero]


def widen(model):
    """The same model in float64."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, tl.Tensor) and value.dtype == np.float32:
                setattr(module, name, type(value)(value.numpy().astype(np.float64)))
    return model
