"""Whatever one passes to a public function: a right result, or an error of the package that names what is at fault.

HYPOTHESIS_PROFILE=thorough pytest tests/test_bad_input.py      the number of cases stands in the last lines
"""

import numpy as np
import pytest
from hostile import COUNTS, arguments, judge, memory_limit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet.primitive import REGISTRY
from tinygrad_lenet.primitive import draw as t

EXAMPLES = max(5, settings().max_examples // (1 if settings().max_examples >= 1000 else 5))


@pytest.fixture(scope="module", autouse=True)
def limits(request):
    """Memory is bounded, and cases are counted."""
    with memory_limit():
        yield
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    reporter.write_line(f"\n{sum(COUNTS.values()):,} cases of bad input, for {len(COUNTS)} functions")


thoroughly = settings(max_examples=EXAMPLES, suppress_health_check=[*HealthCheck], deadline=None)


def _find(op):
    import importlib

    return getattr(importlib.import_module(op.forward.__module__), op.name)


PRIMITIVES = {
    key.removeprefix("tinygrad_lenet."): _find(op) for key, op in REGISTRY.items() if key.startswith("tinygrad_lenet.")
}


@pytest.mark.parametrize("key", PRIMITIVES)
@thoroughly
@given(data=st.data())
def test_primitives(key, data):
    function = PRIMITIVES[key]
    judge(function, data.draw(arguments(function)))


def test_the_judge_finds_faults():
    def adds_in_place(x):
        x += 1
        return tl.tensor(x)

    def from_inside(x):
        return np.linalg.inv(x)

    def accepts_anything(x, flag: "bool" = False):
        return tl.tensor(x)

    calls = [((t(2, 2),), {})]
    for function in (adds_in_place, from_inside, accepts_anything):

        @settings(max_examples=200, database=None)
        @given(data=st.data())
        def run(data, function=function):
            judge(function, data.draw(arguments(function, calls)))

        with pytest.raises(BaseException):  # noqa: B017, PT011  # whichever fault was found first
            run()
