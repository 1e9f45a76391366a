# %% [markdown]
# # 3. Why go through the graph from the newest value to the oldest?
#
# Lesson 2 followed every path. Call the slope of the output along a value the value's gradient, `grad`. The usual first
# idea for a program is recursion: give the output the gradient 1, let each value pass its own, times the local slope,
# to its parents, and they to theirs. One version of it is wrong, another is slow.

# %%
from matplotlib import pyplot as plt
from tour import BLUE, ORANGE, save


# %%
class Value:
    made = 0  # so far

    def __init__(self, data, parents=(), slopes=()):
        self.data, self.parents, self.slopes, self.grad = data, parents, slopes, 0.0
        self.number = Value.made  # the newer a value, the larger its number
        Value.made += 1

    def __add__(self, other):
        return Value(self.data + other.data, (self, other), (1.0, 1.0))


# %% [markdown]
# ## Wrong: each value passes on what it has so far
# As soon as a gradient arrives, the value adds it to its own, and passes its own on. Take y = x + x and z = y + y. Then
# z is 4 x, and y is reached twice. The second time it passes on 2, though it has passed on 1 of these 2 before.


# %%
def hasty(value, g=1.0):
    value.grad += g
    for parent, slope in zip(value.parents, value.slopes, strict=True):
        hasty(parent, value.grad * slope)


def doublings(n):
    """A leaf x, and x doubled n times."""
    x = y = Value(1.0)
    for _ in range(n):
        y = y + y
    return x, y


x, z = doublings(2)
hasty(z)
print(f"the slope of 4 x is 4, but the hasty recursion says {x.grad:.0f}")

# %% [markdown]
# ## Slow: each value passes on only what has just arrived
# Then each path is walked by itself, as in lesson 2. That is right. But each y = y + y doubles the number of paths.


# %%
def path_by_path(value, g=1.0):
    value.grad += g
    below = [path_by_path(parent, g * slope) for parent, slope in zip(value.parents, value.slopes, strict=True)]
    return 1 + sum(below)  # the number of visits


# %% [markdown]
# ## Right and fast: wait until the gradient is complete
# A value may pass on its gradient once all its uses have reported. Every use of a value is newer than the value. So go
# from the newest to the oldest: when a value's turn comes, its gradient is complete, and each value is visited once. An
# order in which every value comes before its parents is called topological. The order of creation, reversed, is one.


# %%
def backward(output):
    found, stack = {output}, [output]
    while stack:  # not a recursion: Python's ends at 1,000 calls, and a graph can be deeper
        for parent in stack.pop().parents:
            if parent not in found:
                found.add(parent)
                stack.append(parent)
    output.grad = 1.0
    for value in sorted(found, key=lambda value: value.number, reverse=True):
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad += value.grad * slope
    return len(found)


slow, fast = [], []
for n in range(1, 13):
    x, y = doublings(n)
    slow.append(path_by_path(y))
    assert x.grad == 2**n  # that of 2 * 2 * ... * x
    x, y = doublings(n)
    fast.append(backward(y))
    assert x.grad == 2**n
print(f"12 doublings: {slow[-1]:,} visits path by path, {fast[-1]} from newest to oldest")
x, y = doublings(1000)
backward(y)
assert x.grad == 2.0**1000  # the other way would take longer than the universe has existed

figure, axes = plt.subplots(figsize=(6.5, 3.6))
axes.semilogy(range(1, 13), slow, "o-", color=ORANGE, label="path by path")
axes.semilogy(range(1, 13), fast, "o-", color=BLUE, label="newest to oldest, each once")
axes.set(
    xlabel="doublings y = y + y", ylabel="visits", title="The number of paths explodes, the number of values does not"
)
axes.legend()
save("03_order")

# %% [markdown]
# `core/graph.py:pullback` goes from newest to oldest in the same way, with a heap instead of sorting.


# %% Your turn
def topological(output):
    """3.1: a list of the values of the graph, each once, before all its parents, and found without `number`."""
    raise NotImplementedError


def count_paths(output, leaf):
    """3.2: the number of paths from the output to the leaf. It must be quick for 200 doublings too."""
    raise NotImplementedError
