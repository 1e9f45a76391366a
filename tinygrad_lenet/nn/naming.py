"""How the error of a layer names the layer."""

from __future__ import annotations

from typing import Any

from ..core.signature import renamed, trusted
from ..errors import TinygradLenetError, named


def title(layer: Any) -> str:
    """The name of the class, and the options if there are any."""
    return f"{type(layer).__name__}({layer.extra_repr()})".removesuffix("()")


def name_layer(error: Exception, layer: Any, outer: bool) -> None:
    """Let an error begin with the layer, unless the user's code or, if it is an ``outer`` module, one within raised it.

    That of ``detect_anomaly`` begins with the op, whose line it gives. Python's own error about the arguments names the
    class.
    """
    if not isinstance(error, TinygradLenetError):
        renamed(error, type(layer).forward, f"{type(layer).__name__}.forward")
        return
    ours = trusted(type(layer).forward)
    error.caller = error.caller or ("" if ours else "?")
    inner = error.caller and (outer or isinstance(error, FloatingPointError))
    if ours and error.caller != "?" and not inner:
        named(error, title(layer))
