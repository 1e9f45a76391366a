# %% [markdown]
# # 1. How can a program find a slope?
#
# A network learns by changing each weight a little, in the direction in which its error falls. So it needs the slope of
# the error with respect to each weight. The simplest way to find a slope is to try: move the weight by a small step h,
# and see how much the error changes. How small should h be? And what if the function has a kink?

# %%
import numpy as np
from matplotlib import pyplot as plt
from tour import BLUE, GREY, ORANGE, RED, save

# %% [markdown]
# ## One number
# The derivative is the limit of (f(x + h) - f(x)) / h as h goes to 0. A program must stop at some h > 0.


# %%
def forward_difference(f, x, h):
    return (f(x + h) - f(x)) / h


def central_difference(f, x, h):
    return (f(x + h) - f(x - h)) / (2 * h)


exact = np.cos(1.0)  # the derivative of sin at 1
for h in (1e-1, 1e-3, 1e-5, 1e-8, 1e-11, 1e-14):
    errors = [abs(difference(np.sin, 1.0, h) - exact) for difference in (forward_difference, central_difference)]
    print(f"h = {h:.0e}   error of the forward difference {errors[0]:.0e}, of the central difference {errors[1]:.0e}")

# %% [markdown]
# Two errors compete.
# - **Curvature.** The forward difference is off by about h f''/2. In the central difference this term cancels, and h^2
#   f'''/6 remains. Both shrink with h.
# - **Rounding.** f(x + h) and f(x - h) are rounded to about 16 digits in float64. If h is tiny the two are almost
#   equal, their difference keeps few digits, and dividing by h enlarges the error. It is about 1e-16 / h, and grows as
#   h shrinks.
#
# The best central step in float64 is near 1e-5, the cube root of the rounding error, and it gives 10 digits. In float32
# this step gives 3 digits, and the best one 5. So gradients are checked in float64.

# %%
assert abs(central_difference(np.sin, 1.0, 1e-5) - exact) < 1e-9
assert abs(forward_difference(np.sin, 1.0, 1e-5) - exact) > 1e-6
assert abs(central_difference(np.sin, np.float32(1), np.float32(1e-5)) - exact) > 1e-4

# %% [markdown]
# ## Many numbers
# A function of n numbers has n slopes, its gradient. Move one number at a time: in a loop, or all at once as the rows
# of a matrix.


# %%
def gradient_by_loop(f, x, h=1e-5):
    result = np.zeros_like(x)
    for i in range(len(x)):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        result[i] = (f(up) - f(down)) / (2 * h)
    return result


def gradient(f, x, h=1e-5):
    moved = h * np.eye(len(x))  # row i moves only number i; f takes the sum along the last axis
    return (f(x + moved) - f(x - moved)) / (2 * h)


def f(x):
    return np.sum(np.sin(x) * x, axis=-1)


x = np.linspace(-2, 2, 9)
assert np.allclose(gradient_by_loop(f, x), gradient(f, x), atol=1e-9)
assert np.allclose(gradient(f, x), np.sin(x) + x * np.cos(x), atol=1e-9)
print(f"{len(x)} slopes took {2 * len(x)} calls of f. LeNet-5, of lesson 10, has 61,706 weights: 123,412 calls a step.")

# %% [markdown]
# This is why the next lessons look for another way. Differences stay the judge: they know nothing of calculus, so they
# find its mistakes. `testing/gradcheck.py:gradcheck` compares them with the gradients of the package. (Each lesson
# names such places: a file in the folder `tinygrad_lenet`, and what to look for in it.)
#
# ## Kinks
# max(0, x) has no derivative at 0. The forward difference says 1, the backward one, (f(x) - f(x - h)) / h, says 0,
# and the central one 1/2. All are slopes of lines that touch the graph at 0. A program has to choose one: here it is 0
# (`ops/activations.py:relu`).

# %%
relu = lambda x: np.maximum(x, 0)
assert forward_difference(relu, 0.0, 1e-5) == 1 and central_difference(relu, 0.0, 1e-5) == 0.5

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
steps = np.logspace(-15, -0.5, 400)
left.loglog(steps, abs(forward_difference(np.sin, 1.0, steps) - exact), ".", color=ORANGE, ms=3, label="forward")
left.loglog(steps, abs(central_difference(np.sin, 1.0, steps) - exact), ".", color=BLUE, ms=3, label="central")
left.set(xlabel="step h", ylabel="error", title="Slope of sin at 1: the error has a valley")
left.text(3e-15, 1e-9, "rounding\n1e-16 / h", color=GREY)
left.text(2e-2, 1e-9, "curvature\nh$^2$", color=GREY)
left.legend(loc="upper center")
ends = np.array([-1.0, 1.0])
right.plot([-1, 0, 1], relu(np.array([-1, 0, 1])), color="black", lw=2.5, label="max(0, x)")
for slope, color, name in ((1, ORANGE, "forward: 1"), (0.5, BLUE, "central: 1/2"), (0, RED, "backward: 0")):
    right.plot(ends, slope * ends, "--", color=color, lw=1.3, label=name)
right.set(xlabel="x", title="At a kink, every answer between 0 and 1", ylim=(-1, 1.1))
right.legend()
save("01_derivatives")


# %% Your turn
def second_derivative(f, x, h):
    """1.1: the second derivative of f at the number x, from f(x - h), f(x) and f(x + h)."""
    raise NotImplementedError


def jacobian(f, x, h):
    """1.2: for f from n numbers to m, the matrix (m, n) whose entry [i, j] is the slope of f(x)[i] along x[j]."""
    raise NotImplementedError
