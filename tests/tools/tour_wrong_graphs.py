"""Wrong answers to the exercises of lessons 1 to 4, each with words that the verdict of `check.py` must contain."""
# ruff: noqa: F821

import math

import numpy as np

WRONG = {}  # by name: pairs of an answer and words


def wrong(words):
    """Note an answer by its name."""

    def note(function):
        WRONG.setdefault(function.__name__, []).append((function, words))
        return function

    return note


@wrong("not by h^2")
def second_derivative(f, x, h):
    return (f(x + h) - 2 * f(x) + f(x - h)) / h


@wrong("subtracted once")
def second_derivative(f, x, h):
    return (f(x + h) - f(x) + f(x - h)) / h**2


@wrong("got None: is a return missing?")
def second_derivative(f, x, h):
    (f(x + h) - 2 * f(x) + f(x - h)) / h**2


@wrong("write / h**2")
def second_derivative(f, x, h):
    return (f(x + h) - 2 * f(x) + f(x - h)) / h * h


@wrong("for f(x) = 1 x^2, x = 0.0, h = 0.01")
def second_derivative(f, x, h):
    return 0.0


@wrong("rows and columns are exchanged")
def jacobian(f, x, h):
    return np.array([(f(x + h * row) - f(x - h * row)) / (2 * h) for row in np.eye(len(x))])


@wrong("forward difference")
def jacobian(f, x, h):
    return np.stack([(f(x + h * row) - f(x)) / h for row in np.eye(len(x))], axis=1)


@wrong("changes its arguments")
def jacobian(f, x, h):
    columns = []
    for i in range(len(x)):
        x[i] += h
        up = f(x)
        x[i] -= 2 * h
        columns.append((up - f(x)) / (2 * h))
    return np.stack(columns, axis=1)


@wrong("are the same array")
def jacobian(f, x, h):
    result = np.zeros((len(f(x)), len(x)))
    for j in range(len(x)):
        up = down = x
        up[j] += h
        down[j] -= h
        result[:, j] = (f(up) - f(down)) / (2 * h)
    return result


@wrong("earlier numbers are still moved")
def jacobian(f, x, h):
    result, up, down = np.zeros((len(f(x)), len(x))), x.copy(), x.copy()
    for j in range(len(x)):
        up[j] += h
        down[j] -= h
        result[:, j] = (f(up) - f(down)) / (2 * h)
    return result


@wrong("\n      for f(x) = a @ sin(x), a = [[")  # what it was given when it failed
def jacobian(f, x, h):
    result = np.zeros((len(x), len(x)))
    for i, step in enumerate(h * np.eye(len(x))):
        result[:, i] = (f(x + step) - f(x - step)) / (2 * h)
    return result


@wrong("rule for powers")
def exp(a):
    return Value(math.exp(a.data), (a,), (a.data * math.exp(a.data - 1),))


@wrong("parents must be a tuple, got Value")
def exp(a):
    return Value(math.exp(a.data), a, math.exp(a.data))


@wrong("the result has no parents")
def exp(a):
    return Value(math.exp(a.data))


@wrong("the slope along a is 1, expected 1.1")
def exp(a):
    return Value(math.exp(a.data), (a,), (1.0,))


@wrong("a slope must be a number, got Value")
def exp(a):
    return Value(math.exp(a.data), (a,), (a,))


@wrong("returns an argument")
def exp(a):
    a.data = math.exp(a.data)
    return a


@wrong("needs a minus")
def divide(a, b):
    return Value(a.data / b.data, (a, b), (1 / b.data, a.data / b.data**2), "/")


@wrong("b is not a parent")
def divide(a, b):
    return a * Value(1 / b.data)


@wrong("slopes must be a tuple, got float")
def divide(a, b):
    return Value(a.data / b.data, (a, b), 1 / b.data, -a.data / b.data**2)


@wrong("each parent needs a slope: parents is a tuple of 2, slopes a tuple of 1")
def divide(a, b):
    return Value(a.data / b.data, (a, b), (1 / b.data,))


@wrong("the wrong way round")
def topological(output):
    order = []

    def visit(value):
        if value not in order:
            for parent in value.parents:
                visit(parent)
            order.append(value)

    visit(output)
    return order


@wrong("expected once")
def topological(output):
    return [output] + [value for parent in output.parents for value in topological(parent)]


@wrong("must come after all its uses")
def topological(output):
    order = [output]
    for value in order:
        for parent in value.parents:
            if parent not in order:
                order.append(parent)
    return order


@wrong("uses the numbers of the values")
def topological(output):
    found, stack = {output}, [output]
    while stack:
        for parent in stack.pop().parents:
            if parent not in found:
                found.add(parent)
                stack.append(parent)
    return sorted(found, key=lambda value: value.number, reverse=True)


@wrong("values of the graph, got float in it")
def topological(output):
    return [output.data]


@wrong("follows every path")
def count_paths(output, leaf):
    return 1 if output is leaf else sum(count_paths(parent, leaf) for parent in output.parents)


@wrong("y + y uses y twice")
def count_paths(output, leaf):
    paths = {leaf: 1}

    def count(value):
        if value not in paths:
            paths[value] = sum(count(parent) for parent in set(value.parents))
        return paths[value]

    return count(output)


@wrong("it calls topological, which is not filled in yet")
def count_paths(output, leaf):
    return len(topological(output))


@wrong("`=` in place of `+=`")
def backward(order):
    order[0].grad = 1.0
    for value in order:
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad = value.grad * slope


@wrong("earlier passes are lost")
def backward(order):
    for value in order:
        value.grad = 0.0
    order[0].grad = 1.0
    for value in order:
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad += value.grad * slope


@wrong("not set to 1")
def backward(order):
    for value in order:
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad += value.grad * slope


@wrong("the grad of v0 is 0.25, expected 2.25")
def backward(order):
    for value in order[1:]:
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad += value.grad * slope


@wrong("not multiplied by the value's own grad")
def backward(order):
    order[0].grad = 1.0
    for value in order:
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad += slope


@wrong("1 / N is missing")
def train_step(w, b, xs, ys, rate):
    w.grad = b.grad = 0.0
    for x, y in zip(xs, ys, strict=True):
        squared_error(w, b, x, y).backward()
    w.data -= rate * w.grad
    b.data -= rate * b.grad


@wrong("uphill")
def train_step(w, b, xs, ys, rate):
    w.grad = b.grad = 0.0
    for x, y in zip(xs, ys, strict=True):
        squared_error(w, b, x, y).backward()
    w.data += rate * w.grad / len(xs)
    b.data += rate * b.grad / len(xs)


@wrong("as before")
def train_step(w, b, xs, ys, rate):
    w.grad = b.grad = 0.0
    for x, y in zip(xs, ys, strict=True):
        squared_error(w, b, x, y).backward()


@wrong("only the last point counts")
def train_step(w, b, xs, ys, rate):
    for x, y in zip(xs, ys, strict=True):
        w.grad = b.grad = 0.0
        squared_error(w, b, x, y).backward()
    w.data -= rate * w.grad / len(xs)
    b.data -= rate * b.grad / len(xs)
