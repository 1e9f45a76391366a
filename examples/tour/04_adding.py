# %% [markdown]
# # 4. Why are gradients added, and what is `zero_grad` for?
#
# In lesson 3, `parent.grad += ...` added. What if it were `=`? And why are gradients set to zero before each step?
# %%
import numpy as np
from matplotlib import pyplot as plt
from tour import BLUE, ORANGE, save


class Value:
    def __init__(self, data, parents=(), slopes=()):
        self.data, self.parents, self.slopes, self.grad = data, parents, slopes, 0.0

    def __add__(self, other):
        return Value(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def backward(self, add=True):
        order = []  # parents first; reversed, it is an order as in lesson 3

        def visit(value):
            if value not in order:
                for parent in value.parents:
                    visit(parent)
                order.append(value)

        visit(self)
        self.grad = 1.0
        for value in reversed(order):
            for parent, slope in zip(value.parents, value.slopes, strict=True):
                parent.grad = (parent.grad if add else 0.0) + value.grad * slope


# %% [markdown]
# ## One value, several uses
# In y = a b + a the value a is used twice: its slope is b + 1. With `=` the last use erases the other.

# %%
for add in (True, False):
    a, b = Value(3.0), Value(5.0)
    (a * b + a).backward(add)
    print(f"with {'+=' if add else '= '}: d y / d a = {a.grad:.0f}, d y / d b = {b.grad:.0f}")
    assert b.grad == 3 and (a.grad == 6) == add

# %% [markdown]
# The mistake is treacherous: b is still right, and so is every network in which nothing is used twice.
#
# ## One weight, several backward passes
# Gradients of leaves add up over passes too. This is useful: data that do not fit into memory are taken in parts.

# %%
xs, ys = [1.0, 2.0, 3.0, 4.0], [2.9, 5.1, 7.2, 8.8]


def squared_error(w, b, x, y):
    d = w * Value(x) + b + Value(-y)
    return d * d


w, b, total = Value(0.0), Value(0.0), Value(0.0)
for x, y in zip(xs, ys, strict=True):  # in one pass
    total = total + squared_error(w, b, x, y)
total.backward()
whole = w.grad, b.grad
w, b = Value(0.0), Value(0.0)
for x, y in zip(xs, ys, strict=True):  # in four passes
    squared_error(w, b, x, y).backward()
assert np.allclose((w.grad, b.grad), whole)

d = 0.0 - np.array(ys)  # as arrays, the slopes are the sums of 2 d x and of 2 d
assert np.allclose(whole, ((2 * d * xs).sum(), (2 * d).sum()))

# %% [markdown]
# A step of gradient descent moves each weight against its gradient. Before each step `zero_grad` sets the old gradients
# to zero. Otherwise a step follows the sum of all gradients so far, and overshoots like a ball without friction.


# %%
def fit(zero_grad, rate=0.01):
    w, b, errors = Value(0.0), Value(0.0), []
    for _ in range(120):
        if zero_grad:
            w.grad = b.grad = 0.0
        parts = [squared_error(w, b, x, y) for x, y in zip(xs, ys, strict=True)]
        for part in parts:
            part.backward()
        errors.append(sum(part.data for part in parts))
        for value in (w, b):
            value.data -= rate * value.grad
    return errors


figure, axes = plt.subplots(figsize=(6.5, 3.6))
for zero_grad, color, label in ((False, ORANGE, "without zero_grad"), (True, BLUE, "with zero_grad")):
    axes.semilogy(fit(zero_grad), color=color, label=label)
    print(f"{label}: error {fit(zero_grad)[-1]:.3f} after 120 steps")
axes.set(xlabel="step", ylabel="squared error", title="A line through four points: old gradients must go")
axes.legend(loc="center right", frameon=True, framealpha=1)
save("04_adding")

# %% [markdown]
# In the package: `core/accumulation.py:Gradients` adds, and `optim/base.py:Optimizer.zero_grad` sets to None.


# %% Your turn
def backward(order):
    """4.1: set the grad of the output to 1, and add to the grad of each parent what each use contributes.

    `order` has all values, the output first, each before its parents. Leaves may hold grads of earlier passes.
    """
    raise NotImplementedError


def train_step(w, b, xs, ys, rate):
    """4.2: move w.data and b.data by a step of gradient descent on the mean squared error. Old grads must not count."""
    raise NotImplementedError
