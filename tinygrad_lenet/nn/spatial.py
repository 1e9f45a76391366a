"""Pooling, padding and resizing as modules, with PyTorch's names, arguments and defaults."""

from __future__ import annotations

from typing import Any, ClassVar

from .. import functional as F
from ..arguments import choice, flag, integer, lengths, number, said
from ..errors import ArgumentError
from ..ops.windows import Padding, Pair, pair
from ..tensor import Tensor
from .activations import Function
from .module import Module, is_other


def check_windows(who: str, dims: int, padding: Any, sizes: dict[str, Any], kernel_size: Any) -> None:
    """Sizes of windows, as their functions take them; None is the default of all but the kernel."""
    pair(kernel_size * 2 if dims == 1 and isinstance(kernel_size, (tuple, list)) else kernel_size, who, "kernel_size")
    several = isinstance(padding, (tuple, list)) and any(isinstance(p, (tuple, list)) for p in padding)
    plain = {} if isinstance(padding, str) or several else {"padding": padding}
    for name, value in {**sizes, **plain}.items():
        if value is not None or name == "padding":
            value = value * 2 if dims == 1 and isinstance(value, (tuple, list)) else value
            pair(value, who, name, 0 if name.endswith("padding") else 1)


class _Pool(Function):
    """What poolings have in common: windows, and a function that takes them."""

    def __init__(self, kernel_size: Any, stride: Any, padding: Any, **options: Any) -> None:
        super().__init__(**options)
        name = type(self).__name__
        sizes = {"stride": stride, "dilation": options.get("dilation")}
        check_windows(name, 1 if name.endswith("1d") else 2, padding, sizes, kernel_size)
        for option in ("ceil_mode", "count_include_pad"):
            flag(name, option, options.get(option, False))
        if options.get("divisor_override") is not None:
            integer(name, "divisor_override", options["divisor_override"])
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Any) -> Tensor:
        """(N, C, ...) to (N, C, ...), smaller."""
        return type(self).function(x, self.kernel_size, self.stride, self.padding, **self.options)

    def extra_repr(self) -> str:
        """The kernel, and what is not the default."""
        defaults = {"stride": None, "padding": 0, "dilation": 1, "count_include_pad": True, "divisor_override": None}
        given = {"stride": self.stride, "padding": self.padding, **self.options}
        told = [f"{name}={said(value)}" for name, value in given.items() if is_other(value, defaults.get(name, False))]
        return ", ".join([str(self.kernel_size), *told])


class MaxPool2d(_Pool):
    """The largest value in each window of images (N, C, H, W); see :func:`tinygrad_lenet.max_pool2d`."""

    function = F.max_pool2d

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Padding = 0,
        dilation: Pair = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation=dilation, ceil_mode=ceil_mode)


class MaxPool1d(_Pool):
    """The largest value in each window of sequences (N, C, L); see :func:`tinygrad_lenet.max_pool1d`."""

    function = F.max_pool1d

    def __init__(
        self, kernel_size: int, stride: int | None = None, padding: int = 0, dilation: int = 1, ceil_mode: bool = False
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation=dilation, ceil_mode=ceil_mode)


class AvgPool2d(_Pool):
    """The mean of each window of images (N, C, H, W); see :func:`tinygrad_lenet.avg_pool2d`."""

    function = F.avg_pool2d

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        options = {"count_include_pad": count_include_pad, "divisor_override": divisor_override}
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode, **options)


class AvgPool1d(_Pool):
    """The mean of each window of sequences (N, C, L); see :func:`tinygrad_lenet.avg_pool1d`."""

    function = F.avg_pool1d

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad)


class AdaptiveAvgPool2d(Module):
    """Means of windows that cover images evenly, to an output of a given size; see
    :func:`tinygrad_lenet.adaptive_avg_pool2d`.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.AdaptiveAvgPool2d(1)(tl.ones(2, 3, 7, 5)).shape
    (2, 3, 1, 1)
    """

    def __init__(self, output_size: int | tuple[int | None, int | None] | None) -> None:
        super().__init__()
        for n in output_size if isinstance(output_size, (tuple, list)) else (output_size,):
            if n is not None:
                integer("AdaptiveAvgPool2d", "output_size", n, 1)
        self.output_size = output_size

    def forward(self, x: Any) -> Tensor:
        """(N, C, H, W) to (N, C, *output_size)."""
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        """The size."""
        return str(self.output_size)


class Upsample(Module):
    """Images in another size, ``"nearest"`` or ``"bilinear"``; see :func:`tinygrad_lenet.interpolate`.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Upsample(scale_factor=2)(tl.ones(2, 3, 7, 5)).shape
    (2, 3, 14, 10)
    """

    def __init__(
        self,
        size: Pair | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
    ) -> None:
        super().__init__()
        for factor in scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,):
            if factor is not None:
                number("Upsample", "scale_factor", factor, "(0, inf)")
        self.size, self.scale_factor = size, scale_factor
        self.mode = choice("Upsample", "mode", mode, ("nearest", "bilinear"))
        self.align_corners = None if align_corners is None else flag("Upsample", "align_corners", align_corners)

    def forward(self, x: Any) -> Tensor:
        """(N, C, H, W) to (N, C, OH, OW)."""
        return F.interpolate(x, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        """What was given."""
        given = {"size": self.size, "scale_factor": self.scale_factor, "align_corners": self.align_corners}
        return ", ".join([f"{name}={said(v)}" for name, v in given.items() if v is not None] + [f"mode={self.mode!r}"])


class _Pad2d(Module):
    mode: ClassVar[str]

    def __init__(self, padding: int | tuple[int, int, int, int]) -> None:
        super().__init__()
        name = type(self).__name__
        widths = lengths(name, "padding", padding)
        self.padding = widths * 4 if len(widths) == 1 else widths
        if len(self.padding) != 4:
            raise ArgumentError(f"{name}: padding must be an integer, or (left, right, top, bottom), got {widths}")

    def forward(self, x: Any) -> Tensor:
        """(..., H, W) to (..., top + H + bottom, left + W + right)."""
        return F.pad(x, self.padding, mode=self.mode)

    def extra_repr(self) -> str:
        """The widths."""
        return str(self.padding)


class ZeroPad2d(_Pad2d):
    """Surround images with zeros: as many on each side, or (left, right, top, bottom).

    Raises:
        ArgumentError: an argument outside of its range.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.ZeroPad2d((1, 0, 0, 1))(tl.ones(1, 1, 1, 2))
    tensor([[[[0., 1., 1.],
              [0., 0., 0.]]]])
    """

    mode = "constant"


class ReflectionPad2d(_Pad2d):
    """Surround images with their mirror image: so many pixels on each side, or (left, right, top, bottom).

    Raises:
        ArgumentError: an argument outside of its range.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.ReflectionPad2d((2, 0, 0, 0))(tl.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[3., 2., 1., 2., 3.]]])
    """

    mode = "reflect"
