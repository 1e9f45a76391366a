"""``tl.compile``: record a function of tensors, and replay it in memory that is made once.

The first two calls run the function as usual, and record what it computes. If both recordings are the same, the second
becomes a program: a list of NumPy calls in memory of its own. Each later call is a replay: copy the arguments to that
memory, run the program, copy the results out. It makes no Tensors, no graph and no memory in between. Arguments of
other shapes, or another state of the model, lead to another two recordings.

Read the modules in this order:

- ``trace``: what a call did, as a list of steps on values. A value stands for an array. A step is an op, or an
  *effect*: a change of state, such as the step of an optimiser. Two traces are compared.
- ``program``: each step as NumPy calls, in memory that is given by lifetime (liveness analysis).
- ``rewrite``: two rewrites of the steps of a trace, before they become a program: pooling before ReLU, and chunks of
  the batch.
- ``recording``: the trace of one call with its results, which makes programs and replays them. A returned tensor may
  have a graph: its node is here. At the end are ``check=True`` and ``report()``, which nothing else needs.
- ``compiled``: the guards that decide which recording a call may replay, and ``tl.compile`` itself.
"""

from .compiled import Compiled as Compiled
from .compiled import compile as compile
