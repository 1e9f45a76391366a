"""``tl.compile``: record a function of tensors, and replay it in memory that is made once.

Read the modules in this order:

- ``trace``: what the function did, as a list of steps (ops and effects) on values. Two traces are compared.
- ``program``: the steps as calls without arguments, in memory that is given by lifetime (liveness analysis).
- ``rewrite``: two rewrites of the steps, between trace and program.
- ``recording``: one traced call. It makes programs, and a replay runs one. The node of a returned tensor is here too,
  and at the end ``check=True`` and ``report()``, which nothing else needs.
- ``compiled``: the guards that decide which recording a call may replay, and ``tl.compile`` itself.
"""

from .compiled import Compiled as Compiled
from .compiled import compile as compile
