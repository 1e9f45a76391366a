"""The methods of Tensor, for type checkers and completion: see ``_methods.pyi``. ``known_as`` sets them."""


class Methods:
    """Base of Tensor; see the public functions of the same names for what each does."""

    __slots__ = ()
