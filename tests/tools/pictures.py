"""Files of one picture in every mode, depth and format that predict.py reads. Each function makes one from grey pixels.

``KINDS`` keep what is dark and what is light. ``INKS`` draw what is dark, in a colour, on a transparent background.
"""

import io
import struct

import numpy as np
from PIL import Image, TiffImagePlugin

SHAPE = 90, 70


def page(digit):
    """A digit of MNIST (28, 28) on a page of grey pixels, SHAPE, darker than the paper."""
    large = np.asarray(Image.fromarray(digit).resize((56, 56), Image.Resampling.BICUBIC))
    pixels = np.full(SHAPE, 250, np.uint8)
    pixels[20:76, 8:64] -= (large * 0.9).astype(np.uint8)
    return pixels


def written(picture, ending, **options):
    stream = io.BytesIO()
    picture.save(stream, ending, **options)
    return stream.getvalue()


def black(pixels):
    """The pixels as black or white, without dots in between."""
    return np.where(pixels < 140, 0, 255).astype(np.uint8)


def pillow(ending, change=lambda picture: picture, **options):
    """A file that Pillow writes of a changed picture."""
    return lambda pixels: written(change(Image.fromarray(pixels)), ending, **options)


def array(ending, change, **options):
    """A file that Pillow writes of a changed array."""
    return lambda pixels: written(Image.fromarray(change(pixels)), ending, **options)


def to(mode):
    return lambda picture: picture.convert(mode)


def tiff(change, bits, form=1, photometric=1, order="<", extra=None):
    """A TIFF file, byte by byte: Pillow does not write all that it reads. ``form`` is 1 for unsigned, 2 for signed."""

    def make(pixels):
        made = change(pixels)
        samples = made.shape[2] if getattr(made, "ndim", 2) == 3 else 1
        raw = made if isinstance(made, bytes) else np.ascontiguousarray(made, made.dtype.newbyteorder(order)).tobytes()
        body = raw + bytes(len(raw) % 2) + struct.pack(f"{order}{samples}H", *[bits] * samples)
        tags = [(256, 70), (257, 90), (258, bits), (259, 1), (262, photometric), (273, 8), (277, samples), (278, 90)]
        tags += [(279, len(raw)), *([(338, extra)] if extra is not None else []), (339, form)]
        head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(body)) + body
        head += struct.pack(f"{order}H", len(tags))
        for tag, value in tags:
            if tag == 258 and samples > 2:
                head += struct.pack(f"{order}HHII", tag, 3, samples, 8 + len(body) - 2 * samples)
            elif tag == 258 and samples == 2:
                head += struct.pack(f"{order}HHIHH", tag, 3, 2, bits, bits)
            else:
                head += struct.pack(f"{order}HHII", tag, 4, 1, value)
        return head + bytes(4)

    return make


def packed(pixels):
    """12 bits for each pixel, two pixels in three bytes."""
    first, second = (pixels.astype(np.uint16).ravel() * 16)[0::2], (pixels.astype(np.uint16).ravel() * 16)[1::2]
    three = first >> 4, (first & 15) << 4 | second >> 8, second & 255
    return np.stack(three, 1).astype(np.uint8).tobytes()


def scaled(dtype, factor=1, offset=0):
    """Other numbers for the same greys; the arithmetic is that of int64 or float64."""
    wide = np.float64 if np.dtype(dtype).kind == "f" else np.int64
    return lambda pixels: (pixels.astype(wide) * factor + offset).astype(dtype)


def frames(ending, mode, **options):
    """An animation, or several pages, of which the first shows the digit."""
    others = [Image.new(mode, SHAPE[::-1], 9 if mode == "L" else "red")]
    return pillow(ending, to(mode), save_all=True, append_images=others, **options)


def grey_and_alpha(pixels):
    """Premultiplied black ink: grey 0, and opacity."""
    return np.stack([np.zeros_like(pixels), opacity(pixels)], 2)


FINE = {"quality": 95}
LOSSLESS = {"lossless": True, "exact": True}
SHORT = scaled(np.uint16, 257)
KINDS = {f"PNG {mode}": pillow("PNG", to(mode)) for mode in ("L", "P", "RGB", "LA", "RGBA")}
KINDS |= {f"JPEG {mode}": pillow("JPEG", to(mode), **FINE) for mode in ("L", "RGB", "CMYK", "YCbCr")}
KINDS |= {f"BMP {mode}": pillow("BMP", to(mode)) for mode in ("L", "P", "RGB", "RGBA")}
KINDS |= {f"GIF {mode}": pillow("GIF", to(mode)) for mode in ("L", "P", "RGB")}
KINDS |= {f"TIFF {mode}": pillow("TIFF", to(mode)) for mode in ("L", "LA", "P", "RGB", "RGBA", "CMYK")}
KINDS |= {f"TIFF {how}": pillow("TIFF", to("RGB"), compression=how) for how in ("tiff_lzw", "packbits")}
KINDS["TIFF jpeg"] = pillow("TIFF", to("RGB"), compression="jpeg", **FINE)
KINDS |= {
    "JPEG progressive": pillow("JPEG", to("RGB"), progressive=True, **FINE),
    "WEBP": pillow("WEBP", to("RGB"), **LOSSLESS),
    "WEBP RGBA": pillow("WEBP", to("RGBA"), **LOSSLESS),
    "WEBP lossy": pillow("WEBP", to("RGB"), **FINE),
    "PGM": pillow("PPM"),
    "PPM": pillow("PPM", to("RGB")),
    "PNG frames": frames("PNG", "L"),
    "GIF frames": frames("GIF", "L"),
    "WEBP frames": frames("WEBP", "RGB", **LOSSLESS),
    "TIFF pages": frames("TIFF", "L"),
    "MPO": frames("MPO", "RGB", **FINE),
    # More than 8 bits
    "PNG 16": array("PNG", SHORT),
    "PNG 12 of 16": array("PNG", scaled(np.uint16, 16)),
    "PGM 16": lambda pixels: b"P5 70 90 65535\n" + SHORT(pixels).astype(">u2").tobytes(),
    "PGM 12": lambda pixels: b"P5 70 90 4095\n" + scaled(">u2", 16)(pixels).tobytes(),
    "PFM": lambda pixels: b"Pf\n70 90\n-1\n" + scaled("<f4", 1 / 255)(pixels)[::-1].tobytes(),
    "TIFF 8 signed": tiff(scaled(np.int8, 1, -128), 8, 2),
    "TIFF 12": tiff(packed, 12),
    "TIFF 16": array("TIFF", SHORT),
    "TIFF 16 lzw": array("TIFF", SHORT, compression="tiff_lzw"),
    "TIFF 12 of 16": array("TIFF", scaled(np.uint16, 16)),
    "TIFF 16 big endian": tiff(SHORT, 16, order=">"),
    "TIFF 16 signed": tiff(scaled(np.int16, 257, -(2**15)), 16, 2),
    "TIFF 16 RGB": tiff(lambda pixels: np.repeat(SHORT(pixels)[..., None], 3, 2), 16, photometric=2),
    "TIFF 32": tiff(scaled(np.uint32, 2**24 + 2**16 + 2**8 + 1), 32),
    "TIFF 32 signed": tiff(scaled(np.int32, 2**24, -(2**31)), 32, 2),
    "TIFF 32 big endian": tiff(scaled(np.int32, 2**24, -(2**31)), 32, 2, order=">"),
    "TIFF white is 0": tiff(lambda pixels: 255 - pixels, 8, photometric=0),
    "TIFF float to 1": array("TIFF", scaled(np.float32, 1 / 255)),
    "TIFF float to 255": array("TIFF", scaled(np.float32)),
    "TIFF float around 0": array("TIFF", scaled(np.float32, 1 / 127.5, -1)),
    "TIFF float below 0": array("TIFF", scaled(np.float32, 1, -300)),
    "TIFF float tiny": array("TIFF", scaled(np.float32, 1e-30)),
    "TIFF float huge": array("TIFF", scaled(np.float32, 2.5e36, -3.2e38)),
}
# With few levels of grey: as the picture in black and white.
COARSE = {f"{ending} 1": pillow(ending, to("1")) for ending in ("PNG", "BMP", "GIF", "TIFF", "PPM")}
COARSE |= {
    "PNG 2 colours": pillow("PNG", lambda picture: picture.quantize(2)),
    "TIFF group 4": pillow("TIFF", to("1"), compression="group4"),
    "TIFF 16 RGB, 5 used": tiff(lambda pixels: np.repeat(scaled("u2", 8)(pixels)[..., None], 3, 2), 16, photometric=2),
}


# Ink on a transparent background


def opacity(pixels):
    return np.clip((250 - pixels.astype(int)) / 229.5 * 255, 0, 255).astype(np.uint8)


def drawn(colour, mode="RGB"):
    """A picture in one colour, whose alpha is the digit."""

    def change(picture):
        made = Image.new(mode, picture.size, colour)
        made.putalpha(Image.fromarray(opacity(np.asarray(picture))))
        return made

    return change


def palette(ink):
    """A picture of two colours, of which the first will be declared transparent."""

    def change(picture):
        made = Image.fromarray((black(np.asarray(picture)) == 0).astype(np.uint8)).convert("P")
        made.putpalette([90, 200, 40, *[ink] * 3])
        return made

    return change


def inverted_if(ink):
    """Black and white, or white and black: the ink is ``ink``."""
    return lambda pixels: black(pixels) ^ np.uint8(ink)


COLOURS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "yellow": (255, 255, 0),
    "grey": (128,) * 3,
    "blue": (0, 0, 99),
}
INKS = {f"{name} {kind}": pillow(kind, drawn(c), **LOSSLESS) for name, c in COLOURS.items() for kind in ("PNG", "WEBP")}
INKS |= {f"{ink} LA {kind}": pillow(kind, drawn(ink, "L")) for ink in (0, 128, 255) for kind in ("PNG", "TIFF")}
if ("La", "La") in TiffImagePlugin.OPEN_INFO.values():  # an older Pillow refuses it
    INKS["La TIFF"] = tiff(grey_and_alpha, 8, extra=1)
COARSE_INKS = {
    f"{ink} P {kind}": pillow(kind, palette(ink), transparency=0) for ink in (0, 255) for kind in ("PNG", "GIF")
}
for ink in (0, 255):
    COARSE_INKS[f"{ink} L key"] = array("PNG", inverted_if(ink), transparency=255 - ink)
    COARSE_INKS[f"{ink} 16 key"] = array(
        "PNG", lambda pixels, ink=ink: SHORT(inverted_if(ink)(pixels)), transparency=257 * (255 - ink)
    )


# Turned pictures, with the tag that turns them back

TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: np.rot90,
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a, -1),
}


def turned(ending, orientation, change=lambda pixels: pixels, **options):
    def make(pixels):
        exif = Image.Exif()
        exif[0x112] = orientation
        picture = Image.fromarray(np.ascontiguousarray(TURNED[orientation](change(pixels))))
        picture = picture.convert("RGB") if ending == "WEBP" else picture
        return written(picture, ending, exif=exif, **options)

    return make


ROTATED = {
    f"{ending} {orientation}": turned(ending, orientation, **options)
    for orientation in TURNED
    for ending, options in {"PNG": {}, "JPEG": FINE, "WEBP": LOSSLESS, "TIFF": {}}.items()
}
ROTATED |= {f"16 {n}": turned("TIFF", n, SHORT, compression="tiff_lzw") for n in TURNED}
