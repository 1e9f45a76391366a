# %% [markdown]
# # 2. How can a program find a slope without trying?
#
# A long formula is made of short ones: sums, products, a tanh. The slope of each short one is known from school. If
# every number remembers the operation that made it, the slopes can be put together. What does a number have to
# remember?

# %%
import math

from matplotlib import pyplot as plt
from tour import draw_graph, save

# %% [markdown]
# ## A number that remembers
# A `Value` holds a number, the values it was computed from (its parents), and how fast it changes with each of them
# (the local slopes). For c = a + b the slopes are 1 and 1. For c = a * b they are b and a. Values and parents form a
# graph. A value without parents is a leaf.


# %%
class Value:
    def __init__(self, data, parents=(), slopes=(), name=""):
        self.data, self.parents, self.slopes, self.name = data, parents, slopes, name

    def __add__(self, other):
        return Value(self.data + other.data, (self, other), (1.0, 1.0), "+")

    def __mul__(self, other):
        return Value(self.data * other.data, (self, other), (other.data, self.data), "*")


def tanh(a):
    y = math.tanh(a.data)
    return Value(y, (a,), (1 - y * y,), "tanh")


# %% [markdown]
# A neuron: y = tanh(w x + b). Its error is the squared distance from the target t, (y - t)^2. Values cannot subtract
# yet, so the leaf is -t. The distance d is used twice.


# %%
def error(w, x, b, minus_t):
    d = tanh(w * x + b) + minus_t
    return d * d


leaves = [Value(number, name=name) for name, number in (("w", 0.5), ("x", 2.0), ("b", -0.3), ("-t", -1.0))]
e = error(*leaves)
print(f"error {e.data:.4f}")

# %% [markdown]
# ## The chain rule counts paths
# If w changes by a small amount, w x changes by x times as much, and so on up to the error. Along one path the slopes
# multiply. If several paths lead from w to the error, their products add up. That is the whole chain rule.


# %%
def paths(output, leaf):
    """Each path from the output down to the leaf, as the list of slopes along it."""
    if output is leaf:
        yield []
    for parent, slope in zip(output.parents, output.slopes, strict=True):
        for rest in paths(parent, leaf):
            yield [slope, *rest]


def derivative(output, leaf):
    return sum(math.prod(path) for path in paths(output, leaf))


for leaf in leaves:
    print(f"d error / d {leaf.name:2} = {derivative(e, leaf):8.4f}, from {len(list(paths(e, leaf)))} paths")

# %% [markdown]
# The plain way of lesson 1 agrees: change one number by h, and compute everything again.

# %%
h, numbers = 1e-6, [leaf.data for leaf in leaves]
for i, leaf in enumerate(leaves):
    up, down = ([Value(n + step * (i == j)) for j, n in enumerate(numbers)] for step in (h, -h))
    difference = (error(*up).data - error(*down).data) / (2 * h)
    assert abs(difference - derivative(e, leaf)) < 1e-8

# %% [markdown]
# In the package a Tensor holds an array, and a `core/graph.py:Node` remembers parents. `core/primitive.py:primitive`
# makes a function an op: an operation with rules that multiply by its slopes. For example: `ops/elementwise.py:mul`.
#
# The number of paths can be huge. Lesson 3 finds a way that visits each value once.

# %%
figure, axes = plt.subplots(figsize=(9, 3.6))
draw_graph(axes, e)
axes.set(xlim=(-5.4, 0.5), ylim=(-2.2, 0.8), title="The error of a neuron: numbers in blue, local slopes in orange")
axes.axis("off")
save("02_graph")


# %% Your turn
def exp(a):
    """2.1: e to the power of the Value a: a Value with its parent and slope, as in tanh."""
    raise NotImplementedError


def divide(a, b):
    """2.2: the Value a divided by the Value b: a Value with its parents and slopes."""
    raise NotImplementedError
