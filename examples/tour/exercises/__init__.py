"""The exercises: what is drawn, what is right, the usual mistakes by name, and hints. `check.py` uses them.

What is right comes from the package or from differences, so no answer is written here.
"""

from .arrays import EIGHT, FIVE, SEVEN, SIX
from .exercise import TooSlow, Wrong, kind, show
from .graphs import FOUR, ONE, THREE, TWO
from .networks import ELEVEN, NINE, TEN, TWELVE

__all__ = ["LESSONS", "TooSlow", "Wrong", "kind", "show"]

LESSONS = dict(enumerate((ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN, EIGHT, NINE, TEN, ELEVEN, TWELVE), 1))
