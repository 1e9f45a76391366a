"""The exercises of lessons 1 to 4: slopes and graphs."""

import numpy as np
from hypothesis import strategies as st

from .exercise import Exercise, TooSlow, Wrong, drawn, floats, kind, show, small, vjp

# Lessons 1 and 2: slopes

CUBIC = st.tuples(*[small(-3, 3)] * 4).map(lambda c: np.poly1d(c))
sines = lambda a: lambda x: a @ np.sin(x)


def formula(f):
    """A polynomial in words: 2 x^3 - 1 x."""
    terms = [f"{c:g} {power}".strip() for c, power in zip(f.c[::-1], ("", "x", "x^2", "x^3"), strict=False) if c]
    return " + ".join(reversed(terms)).replace("+ -", "- ") or "0"


def shifted(a, x, up, down):
    """Columns of differences of a @ sin(x), with these steps."""
    steps = np.eye(len(x))
    return np.stack([sines(a)(x + up * s) - sines(a)(x - down * s) for s in steps], axis=1)


def kept_steps(a, x, h):
    """A Jacobian whose steps are not taken back."""
    x, columns = x.copy(), []
    for i in range(len(x)):
        x[i] += h
        high = sines(a)(x)
        x[i] -= 2 * h
        columns.append((high - sines(a)(x)) / (2 * h))
    return np.stack(columns, axis=1)


ONE = [
    Exercise(
        "second_derivative",
        st.tuples(CUBIC, floats().map(float)),
        right=lambda f, x: f.deriv(2)(x),
        call=lambda names, answer, f, x: answer(lambda x: f(x), x, 1e-2),
        mistakes={
            "divided by h, not by h^2": lambda f, x: 1e-2 * f.deriv(2)(x),
            "f(x) is subtracted once, not twice": lambda f, x: f.deriv(2)(x) + f(x) / 1e-4,
            "`/ h * h` divides and multiplies again: write / h**2": lambda f, x: 1e-4 * f.deriv(2)(x),
            "this is the first derivative": lambda f, x: (f(x + 0.01) - f(x - 0.01)) / 0.02,
        },
        hints=(
            "The slope between x and x + h is (f(x + h) - f(x)) / h. Write down the slope between x - h and x as well.",
            "The second derivative is how fast the slope changes. The middles of the two intervals are h apart.",
            "Three values of f are needed. That in the middle counts twice, with a minus.",
        ),
        show=lambda arguments: f"f(x) = {formula(arguments[0])}, x = {arguments[1]}, h = 0.01",
    ),
    Exercise(
        "jacobian",
        drawn(small(1, 3), small(1, 3))(lambda m, n: (floats(m, n), floats(n))),
        right=lambda a, x: a * np.cos(x),
        call=lambda names, answer, a, x: answer(sines(a), x, 1e-4),
        mistakes={
            "rows and columns are exchanged": lambda a, x: (a * np.cos(x)).T,
            "a central difference is divided by 2 h, not by h": lambda a, x: 2 * a * np.cos(x),
            "a forward difference; take the central one": lambda a, x: shifted(a, x, 1e-4, 0) / 1e-4,
            "`up` and `down` are the same array: each needs a copy of x": lambda a, x: 0 * a,
            "earlier numbers are still moved: copy x anew for each": lambda a, x: np.cumsum(a * np.cos(x), axis=1),
            "each step is added to x and not taken back": lambda a, x: kept_steps(a, x, 1e-4),
        },
        hints=(
            "Move one number of x at a time, as in gradient_by_loop. f now gives m numbers at once.",
            "What one step gives is a column of the matrix.",
            "np.stack(columns, axis=1) makes a matrix of columns.",
        ),
        show=lambda arguments: f"f(x) = a @ sin(x), {show(arguments, 'ax')}, h = 0.0001",
    ),
]


def as_value(names, answer, *numbers):
    values = [names["Value"](n) for n in numbers]
    result = answer(*values)
    if not isinstance(result, names["Value"]):
        raise Wrong(f"it must return a Value, got {kind(result)}")
    if [value.data for value in values] != list(numbers) or result in values:
        raise Wrong("it changes or returns an argument; make a new Value")
    for part in ("parents", "slopes"):
        if not isinstance(getattr(result, part), (tuple, list)):
            raise Wrong(f"{part} must be a tuple, got {kind(getattr(result, part))}; with one element it is (a,)")
    if len(result.parents) != len(result.slopes):
        raise Wrong(f"each parent needs a slope: parents is {kind(result.parents)}, slopes {kind(result.slopes)}")
    for slope in result.slopes:
        if not isinstance(slope, (int, float)):
            raise Wrong(f"a slope must be a number, got {kind(slope)}")
    return (result.data, *(names["derivative"](result, value) for value in values))


SAFE = small(-20, 20).filter(bool).map(lambda n: n / 10)
TWO = [
    Exercise(
        "exp",
        st.tuples(floats().map(float)),
        right=lambda a: {"data": np.exp(a), "the slope along a": np.exp(a)},
        call=as_value,
        mistakes={
            "x e^(x - 1) follows the rule for powers of x": lambda a: (np.exp(a), a * np.exp(a - 1)),
            "the result has no parents": lambda a: (np.exp(a), 0.0),
            "the slope is 1": lambda a: (np.exp(a), 1.0),
            "the slope is taken at e^a, not at a": lambda a: (np.exp(a), np.exp(np.exp(a))),
        },
        hints=(
            "Look at tanh in the lesson.",
            "The slope of e^x is e^x.",
            "The slope is the result itself, as a number.",
        ),
    ),
    Exercise(
        "divide",
        st.tuples(floats().map(float), SAFE),
        right=lambda a, b: {"data": a / b, "the slope along a": 1 / b, "the slope along b": -a / b**2},
        call=as_value,
        mistakes={
            "the slope for b needs a minus": lambda a, b: (a / b, 1 / b, a / b**2),
            "the result has no parents": lambda a, b: (a / b, 0.0, 0.0),
            "b is not a parent of the result": lambda a, b: (a / b, 1 / b, 0.0),
            "these are the slopes of a * b": lambda a, b: (a / b, b, a),
            "the slope for b needs b squared": lambda a, b: (a / b, 1 / b, -a / b),
            "the slope for b lacks the factor a": lambda a, b: (a / b, 1 / b, -1 / b**2),
            "the slopes are exchanged": lambda a, b: (a / b, -a / b**2, 1 / b),
        },
        hints=(
            "There are two slopes: one for a with b fixed, one for b with a fixed.",
            "a / b is a times 1 / b. So the slope for a is 1 / b.",
            "The slope of 1 / b is -1 / b^2.",
        ),
    ),
]

# Lessons 3 and 4: graphs. A program is a list of (product or sum, one value, another); values are numbered.

PROGRAM = st.lists(st.tuples(st.booleans(), small(0, 30), small(0, 30)), min_size=1, max_size=6)
SUMS = PROGRAM.map(lambda program: [(False, a, b) for _, a, b in program])
MOST = 20_000  # times that an answer may look at the parents of values


def counted(Value):
    """A Value that counts how often its parents are looked at."""

    class Counted(Value):
        looks = 0

        @property
        def parents(self):
            Counted.looks += 1
            if Counted.looks > MOST:
                raise TooSlow("it follows every path. Visit each value once, and note the result for it")
            return self._parents

        @parents.setter
        def parents(self, parents):
            self._parents = parents

        def __add__(self, other):
            return Counted(self.data + other.data, (self, other), (1.0, 1.0))

        def __mul__(self, other):
            return Counted(self.data * other.data, (self, other), (other.data, self.data))

    return Counted


def run(program, leaves):
    """The values of a program."""
    values = list(leaves)
    for product, a, b in program:
        one, other = values[a % len(values)], values[b % len(values)]
        values.append(one * other if product else one + other)
    return values


def needed(program, leaves):
    """The numbers of the values that the last one needs, and their parents."""
    parents = dict.fromkeys(range(leaves), ())
    for number, (_, a, b) in enumerate(program, leaves):
        parents[number] = (a % number, b % number)
    found, wanted = set(), [len(parents) - 1]
    while wanted:
        number = wanted.pop()
        found.add(number)
        wanted += [parent for parent in parents[number] if parent not in found]
    return found, parents


def formulas(program, leaves=1):
    """The program in words: v1 = v0 + v0, and so on."""
    lines = [
        f"v{number} = v{a % number} {'*' if product else '+'} v{b % number}"
        for number, (product, a, b) in enumerate(program, leaves)
    ]
    return "; ".join(lines) if len(lines) < 20 else f"{len(lines)} doublings"


def unnumbered(Value):
    """A Value that hides its number."""

    def number(self):
        raise Wrong("it uses the numbers of the values; their parents must be enough")

    return type("Value", (Value,), {"number": property(number)})


def ordered(names, answer, program):
    values = run(program, [names["Value"](1.0)])
    for value in values:
        value.__class__ = unnumbered(names["Value"])
    found, parents = needed(program, 1)
    order = answer(values[-1])
    if not isinstance(order, list):
        raise Wrong(f"it must return a list, got {kind(order)}")
    name = {id(value): number for number, value in enumerate(values)}
    for value in order:
        if id(value) not in name:
            raise Wrong(f"the list must hold the values of the graph, got {kind(value)} in it")
    numbers = [name[id(value)] for value in order]
    where = f"; the list is [{', '.join(f'v{number}' for number in numbers)}]"
    for number in sorted(found):
        if numbers.count(number) != 1:
            raise Wrong(f"v{number} is {numbers.count(number)} times in the list, expected once{where}")
        for parent in parents[number]:
            if parent in numbers and numbers.index(parent) < numbers.index(number):
                first = numbers[0] == 0 and len(found) > 1
                why = "the list is the wrong way round" if first else "a value must come after all its uses"
                raise Wrong(f"v{parent} comes before v{number}, which uses it: {why}{where}")
    return len(numbers)


def paths_counted(names, answer, program, leaf):
    Counted = counted(names["Value"])
    values = run(program, [Counted(1.0)])
    return float(answer(values[-1], values[leaf]))


def parents_once(program, leaf):
    """The number of paths, if both uses of a value by one sum are taken for one."""
    found, parents = needed(program, 1)
    paths = {leaf: 1}
    for number in sorted(found - {leaf}):
        paths[number] = sum(paths[parent] for parent in set(parents[number]))
    return float(paths[max(found)])


DEEP = [(False, n, n) for n in range(200)]
THREE = [
    Exercise(
        "topological",
        st.tuples(SUMS | st.just(DEEP[:20])),
        right=lambda program: len(needed(program, 1)[0]),
        call=ordered,
        hints=(
            "Go down from the output. Note a value after all its parents are noted; then reverse the list.",
            "Keep a set of the values that were visited, so that none is noted twice.",
            "def visit(value): if it is new, visit its parents, then append it.",
        ),
        show=lambda arguments: formulas(arguments[0]),
    ),
    Exercise(
        "count_paths",
        st.tuples(SUMS | st.just(DEEP), st.just(0)),
        right=lambda program, leaf: vjp(lambda x: run(program, [x])[-1], np.array(1.0), np.array(1.0)).item(),
        call=paths_counted,
        mistakes={
            "this is the number of values": lambda program, leaf: len(needed(program, 1)[0]),
            "y + y uses y twice: that makes two paths": parents_once,
        },
        hints=(
            "The number of paths from a value is the sum of those from its parents. From the leaf it is 1.",
            "Each value's number is needed many times. Compute it once, and keep it in a dict.",
            "It is the slope along the leaf, if each local slope is 1. Lesson 3 computes it in one pass.",
        ),
        show=lambda arguments: formulas(arguments[0]),
    ),
]
LEAVES = (0.5, -1.5, 2.0)


OLD = (0.25, -0.5, 3.0)  # the grads of the leaves from an earlier pass


def gradients(program, add=True, start=OLD, seed=1.0, chain=True):
    """The gradients of all values of a program; `=` for `+=` unless ``add``, slopes alone unless ``chain``."""
    found, parents = needed(program, len(LEAVES))
    data = run(program, LEAVES)
    grad = [*start, *[0.0] * len(program)]
    grad[-1] = seed
    for number in sorted(found, reverse=True):
        if parents[number]:
            a, b = parents[number]
            slopes = (data[b], data[a]) if program[number - len(LEAVES)][0] else (1.0, 1.0)
            for parent, slope in zip((a, b), slopes, strict=True):
                grad[parent] = (grad[parent] if add else 0.0) + (grad[number] if chain else 1.0) * slope
    return {f"the grad of v{number}": grad[number] for number in sorted(found)}


def backward(names, answer, program):
    values = run(program, [names["Value"](n) for n in LEAVES])
    for value, old in zip(values, OLD, strict=False):
        value.grad = old
    found = sorted(needed(program, 3)[0])
    answer([values[number] for number in reversed(found)])
    return [values[number].grad for number in found]


def stepped(names, answer, xs, ys):
    w, b = names["Value"](0.5), names["Value"](-0.25)
    w.grad, b.grad = 7.0, -3.0
    answer(w, b, list(xs), list(ys), 0.1)
    return w.data, b.data


def line_step(xs, ys, factor=1.0, old=0.0):
    d = 0.5 * xs - 0.25 - ys
    return 0.5 - 0.1 * factor * ((2 * d * xs).mean() + 7 * old), -0.25 - 0.1 * factor * ((2 * d).mean() - 3 * old)


FOUR = [
    Exercise(
        "backward",
        st.tuples(PROGRAM),
        right=gradients,
        call=backward,
        mistakes={
            "`=` in place of `+=`: of several uses of a value only the last counts": lambda p: gradients(p, add=False),
            "the grads that leaves have from earlier passes are lost": lambda p: gradients(p, start=(0, 0, 0)),
            "the slope is not multiplied by the value's own grad": lambda p: gradients(p, chain=False),
            "the grad of the output is not set to 1": lambda p: gradients(p, seed=0.0),
        },
        hints=(
            "order[0] is the output: its grad is 1. Then go through the order.",
            "zip(value.parents, value.slopes) gives each parent with its slope.",
            "A parent gets the value's grad times the slope, added to what it has.",
        ),
        show=lambda arguments: f"{formulas(arguments[0], 3)}; v0, v1, v2 = {LEAVES}, with the grads {OLD}",
    ),
    Exercise(
        "train_step",
        drawn(small(1, 4))(lambda n: (floats(n), floats(n))),
        right=lambda *points: dict(zip(("w.data", "b.data"), line_step(*points), strict=True)),
        call=stepped,
        mistakes={
            "the gradients of earlier passes are still there: set them to 0 first": lambda xs, ys: line_step(
                xs, ys, 1, 1
            ),
            "1 / N is missing: this is the sum of the squared errors, not the mean": lambda xs, ys: line_step(
                xs, ys, len(xs)
            ),
            "the grads are set to 0 at each point, so only the last point counts": lambda xs, ys: line_step(
                xs[-1:], ys[-1:], 1 / len(xs)
            ),
            "the step goes uphill: subtract the gradient": lambda xs, ys: line_step(xs, ys, -1),
            "the step goes uphill, and 1 / N is missing": lambda xs, ys: line_step(xs, ys, -len(xs)),
            "w and b are as before: change w.data and b.data": lambda xs, ys: (0.5, -0.25),
        },
        hints=(
            "Four things: set both grads to 0, compute the errors, go backward, move w.data and b.data.",
            "squared_error(w, b, x, y) of the lesson is the error of one point.",
            "The mean has the slope of the sum, divided by len(xs).",
        ),
        show=lambda arguments: f"w.data = 0.5, b.data = -0.25, rate = 0.1, {show(arguments, ('xs', 'ys'))}",
    ),
]
