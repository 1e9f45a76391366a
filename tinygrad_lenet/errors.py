"""What can go wrong, as one tree.

    TinygradLenetError
    ├── ShapeError      (ValueError)    shapes that do not fit together
    ├── DTypeError      (TypeError)     a dtype or type that cannot be used here
    ├── ArgumentError   (ValueError)    an argument outside its range, or an unknown choice
    ├── OutOfRangeError (IndexError)    an index beyond the end of an axis
    ├── AxisError       (both of these) an axis that the tensor does not have
    ├── GradientError   (RuntimeError)  a gradient that does not exist, or a graph that is gone
    ├── AnomalyError    (FloatingPointError) a NaN or an infinity that ``detect_anomaly`` found
    ├── UnsupportedError (NotImplementedError) what another library has and this one has not
    ├── DataError       (ValueError)    a file that is not what it claims to be
    └── DownloadError   (OSError)       no mirror gave the right file

Each also derives from the built-in exception in brackets, so ``except ValueError`` keeps working. Every message says
what was given, what was expected, and how to put it right.
"""


class TinygradLenetError(Exception):
    """Base of every exception that the package raises on purpose."""


class ShapeError(TinygradLenetError, ValueError):
    """Shapes do not fit together."""


class DTypeError(TinygradLenetError, TypeError):
    """A dtype, or a type, cannot be used here."""


class ArgumentError(TinygradLenetError, ValueError):
    """An argument lies outside its range, or names an unknown choice."""


class OutOfRangeError(TinygradLenetError, IndexError):
    """An index lies beyond the end of its axis."""


class AxisError(ArgumentError, OutOfRangeError):
    """The tensor does not have that axis; as NumPy's of the same name, a ValueError and an IndexError."""


class GradientError(TinygradLenetError, RuntimeError):
    """A gradient does not exist, or the graph that it needs is gone or was changed."""


class AnomalyError(TinygradLenetError, FloatingPointError):
    """A value or a gradient is NaN or infinite, and somebody watched for that."""


class UnsupportedError(TinygradLenetError, NotImplementedError):
    """Something that another library or format has, and this package has not."""


class DataError(TinygradLenetError, ValueError):
    """A file is not what it claims to be."""


class DownloadError(TinygradLenetError, OSError):
    """No mirror gave the right file."""
