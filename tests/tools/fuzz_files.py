"""What ``fuzz.py`` reads: for each format right files, wrong ones, and a reader that is not the package's."""

import gzip
import io
import json
import os
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from fuzz import NUMBERS, damage
from idx_files import CODES, encode

import tinygrad_lenet as tl
from tinygrad_lenet.data import read_idx
from tinygrad_lenet.serialization import FORMAT


def same(a, b):
    """Equal values of equal types, arrays by dtype, shape and bits."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a


def arrays_in(value):
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from arrays_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from arrays_in(item)


class Target:
    """A format: ``seeds`` and ``inner`` (what stands behind a checksum) are right, ``make`` gives any file."""

    refusals = (tl.DataError, tl.UnsupportedError, tl.ArgumentError)
    ending = ""

    @property
    def name(self):
        return type(self).__name__.lower()

    def bytes_of(self, found):
        return [a.tobytes() for a in arrays_in(found)]

    def wrap(self, inner):
        return inner


def pick(rng, right, *wrong, chance=0.08):
    """The right value, or rarely a wrong one."""
    return rng.choice(wrong) if wrong and rng.random() < chance else right


def number(rng, right, chance=0.06):
    return pick(rng, right, *NUMBERS, right + 1, right - 1, -1, chance=chance)


def field(code, value):
    """A field of a struct, of any integer."""
    width = struct.calcsize(code)
    return (value % (1 << 8 * width)).to_bytes(width, "big" if code[0] == ">" else "little")


def array(rng):
    shape = [rng.choice([0, 1, 1, 2, 3, 7]) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 5]))]
    dtype = rng.choice(["u1", "i1", "i2", "i4", "i8", "u4", "f2", "f4", "f8", "?"])
    content = rng.randbytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.frombuffer(bytes(b % 2 for b in content) if dtype == "?" else content, dtype).reshape(shape)


_packer = zlib.compressobj(9, zlib.DEFLATED, -15)
BOMB = _packer.compress(bytes(20_000_000)) + _packer.flush()  # 20 MB in 20 kB


class Idx(Target):
    def __init__(self):
        self.inner = [encode(np.arange(24, dtype=code).reshape(2, 3, 4)) for code in CODES]
        halves = gzip.compress(self.inner[3][:9]) + gzip.compress(self.inner[3][9:])
        self.seeds = [*self.inner, gzip.compress(self.inner[0]), halves]

    def read(self, path):
        return read_idx(path)

    def oracle(self, path):
        content = Path(path).read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        shape = struct.unpack_from(f">{content[3]}I", content, 4)
        code = next(code for code, byte in CODES.items() if byte == content[2])
        return np.frombuffer(content[4 + 4 * len(shape) :], f">{code}").reshape(shape).astype(code)

    def wrap(self, inner):
        return gzip.compress(inner, 1)

    def make(self, rng):
        x = array(rng)
        code = x.dtype.str[1:] if x.dtype.str[1:] in CODES else "u1"
        kind, axes = pick(rng, CODES[code], *range(256)), pick(rng, x.ndim, *range(256))
        head = bytes([pick(rng, 0, 1, 255), pick(rng, 0, 9), kind, axes])
        shape = b"".join(field(">I", number(rng, n)) for n in x.shape)
        content = head + shape + x.tobytes() + rng.randbytes(pick(rng, 0, 1, 50))
        if rng.random() < 0.5:
            return content
        content = damage(rng, content) if rng.random() < 0.1 else content
        cut = rng.randrange(len(content) + 1) if rng.random() < 0.3 else 0
        parts = [self.member(rng, part) for part in ([content[:cut], content[cut:]] if cut else [content])]
        return b"".join(parts) + pick(rng, b"", b"\0\0", b"junk", parts[0], b"\x1f\x8b")

    def member(self, rng, content):
        """A gzip member."""
        flags = pick(rng, 0, 1, 2, 4, 8, 16, 31, 255)
        packer = zlib.compressobj(rng.choice([0, 1, 9]), zlib.DEFLATED, -15)
        body = pick(rng, packer.compress(content) + packer.flush(), BOMB, b"", rng.randbytes(20), chance=0.03)
        extra = pick(rng, b"", b"name\0", b"\4\0abcd", b"\xff\xff", b"name\0comment\0")
        check, size = number(rng, zlib.crc32(content), 0.03), number(rng, len(content), 0.03)
        method = pick(rng, 8, 0, 9, chance=0.02)
        return b"\x1f\x8b" + bytes([method, flags]) + bytes(6) + extra + body + field("<I", check) + field("<I", size)


def npy(rng, x):
    """An array in NumPy's format."""
    version = pick(rng, (1, 0), (2, 0), (3, 0), (0, 0), (255, 1), (1, 1))
    descr = pick(rng, repr(x.dtype.str), *DESCR, chance=0.1)
    sides = [str(number(rng, n, 0.04)) for n in x.shape]
    shape = pick(rng, "(" + "".join(side + ", " for side in sides) + ")", *SHAPES)
    entries = [f"'descr': {descr}", f"'fortran_order': {pick(rng, 'False', 'True', '1', 'None')}", f"'shape': {shape}"]
    entries = pick(rng, entries, entries[::-1], entries[:2], entries * 2, [*entries, "'more': 0"])
    head = pick(rng, "{" + ", ".join(entries) + ", }", *HEADS, chance=0.04).encode()
    code = "<H" if version[0] == 1 else "<I"
    head += b" " * (-(len(head) + 11) % 64) + pick(rng, b"\n", b"", b"\0", b" " * 70_000, chance=0.02)
    magic = pick(rng, b"\x93NUMPY", b"\x93NUMPZ", chance=0.02)
    body = pick(rng, x.tobytes(), x.tobytes()[:-1], x.tobytes() + b"0", b"", b"\x80\x04N.", chance=0.06)
    return magic + bytes(version) + field(code, number(rng, len(head), 0.03)) + head + body


DESCR = r"""'|O' 'O' '|V8' '<U4' '|S3' '<M8[s]' '<c8' '>f4' '>i8' 'f' '(2,)f4' '1000000000f8' '' '{' '<f16' '<g' '?'
'<i3' '|u8' '<p' '\d' 'object' 'f4,f4' b'<f4' None 1 {}
[('a','<f4')] [('a','|O')] [('a','<f4',(1000000000,))] ('<f4',(2,)) '|V9223372036854775807'""".split()
SHAPES = """() (0,) (-1,) (-1,-1) (1152921504606846976,) (4294967296,4294967296) (0,9223372036854775807) 3 [3] (1.0,)
(True,) ('3',) (3L,) (3) (03,) (,) (10**100,) None""".split()
SHAPES += ["(" + "1, " * 70 + ")", "(" + "0, " * 3000 + ")", "(" + "9" * 4999 + ",)"]
HEADS = (
    """{ {} None {**{}} ... ''' f'{1}' __import__('os').system('true') lambda:0 {'descr':'<f4','shape':(1,)}""".split()
)
HEADS += [
    "",
    "(" * 5000,
    "[" * 90 + "]" * 90,
    "-" * 9000 + "1",
    "1+" * 4000 + "1",
    "9" * 9000,
    "'" + "a" * 9000,
    "{1: " * 100,
]
HEADS += [
    "[]" * 4000,
    "\0",
    "b'" + "\\x00" * 2000 + "'",
    "not " * 2000 + "1",
    "{" + " " * 9000,
    "{" + "'shape': (), " * 700 + "}",
]


def archive(rng, members):
    """A zip archive, written field by field."""
    body, index = b"", b""
    for name, content in members:
        method = pick(rng, rng.choice([0, 0, 8]), 9, 12, 14, 99, chance=0.03)
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = packer.compress(content) + packer.flush() if method == 8 else content
        packed = pick(rng, packed, BOMB, packed[:-1], b"", chance=0.03)
        flags = pick(rng, 0, 1, 8, 0x20, 0x40, 0x800, 0xFFFF, chance=0.03)
        version = pick(rng, 20, 45, 63, 99, chance=0.02)
        check, small, large = (number(rng, n, 0.02) for n in (zlib.crc32(content), len(packed), len(content)))
        at = number(rng, len(body), 0.03)
        wide = struct.pack("<HHQQ", 1, 16, len(content), len(packed))
        wide = pick(rng, b"", wide, b"\1\0\xff\xff", b"\1\0\0\0", chance=0.04)
        common = field("<H", flags) + field("<H", method) + bytes(4)
        common += field("<I", check) + field("<I", small) + field("<I", large)
        raw = name.encode("utf-8", "surrogateescape")
        other = pick(rng, raw, b"x.npy", raw + b"\0", b"", chance=0.02)
        lengths = field("<H", number(rng, len(other), 0.02)) + field("<H", len(wide))
        body += b"PK\3\4" + field("<H", version) + common + lengths + other + wide + packed
        lengths = field("<H", number(rng, len(raw), 0.02)) + field("<H", len(wide))
        lengths += field("<H", pick(rng, 0, 9, 65535, chance=0.02)) + bytes(8)
        index += b"PK\1\2" + bytes([20, 3]) + field("<H", version) + common + lengths + field("<I", at) + raw + wide
    count, size, at = (number(rng, n, 0.03) for n in (len(members), len(index), len(body)))
    comment = pick(rng, b"", *COMMENTS, chance=0.1)
    end = b"PK\5\6" + bytes(4) + field("<H", count) * 2 + field("<I", size) + field("<I", at)
    if rng.random() < 0.03:  # the end of large archives, and where it lies
        sizes = [number(rng, n, 0.3) for n in (44, len(members), len(members), len(index), len(body))]
        wide = b"PK\6\6" + field("<Q", sizes[0]) + bytes(12) + b"".join(field("<Q", n) for n in sizes[1:])
        where = field("<Q", number(rng, len(body) + len(index), 0.2))
        index += wide + b"PK\6\7" + bytes(4) + where + b"\1\0\0\0"
    end += field("<H", number(rng, len(comment), 0.1)) + comment
    return pick(rng, b"", b"before", chance=0.02) + body + index + end


COMMENTS = [b'{"a": "b"}', b'{"\\u00e9": "", "": "\\n"}', b'{"a": 1}', b'{"a": "\\ud800"}', b'{"a": "", "a": ""}']
COMMENTS += [b"[]", b"comment", b"PK\5\6" + bytes(18), b"x" * 300, b"[" * 60_000, b'{"a":' * 9000, b"null", b"9" * 5000]
NAMES = ["../../x.npy", "/etc/x.npy", "C:\\x.npy", "a\0b.npy", "", ".npy", "x/", "..", "ü.npy", "\udcff.npy"]
NAMES += ["a" * 5000 + ".npy", "weight", "__class__.npy", "0.npy", "\x1b[2J\r\n\u202e.npy", "n" * 60_000]


def zipped(members, comment=b""):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.comment = comment
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def unzipped(path):
    """Content by name, in pieces: reading all at once wants memory for the size that is claimed."""
    found = {}
    with zipfile.ZipFile(path) as file:
        for name in file.namelist():
            found[name] = b""
            with file.open(name) as stream:
                while piece := stream.read(1 << 16):
                    found[name] += piece
    return found


def npy_of(x):
    stream = io.BytesIO()
    np.save(stream, x)
    return stream.getvalue()


class Npz(Target):
    ending = ".npz"

    def __init__(self):
        arrays = np.arange(6.0), np.float32(3), np.ones((2, 3), "i2").T, np.zeros((0, 4)), np.ones(3, ">f4")
        self.inner = [npy_of(x) for x in arrays]
        stream = io.BytesIO()
        np.savez_compressed(stream, a=np.zeros((50, 50)), b=np.arange(5))
        self.seeds = [zipped({f"{i}.npy": x for i, x in enumerate(self.inner)}), stream.getvalue(), zipped({})]
        self.seeds.append(zipped({"a.npy": self.inner[0]}, COMMENTS[1]))

    def read(self, path):
        return [tl.load(path), tl.load_metadata(path)]

    def oracle(self, path):
        comment = Path(path).read_bytes().rpartition(b"PK\5\6")[2][16:]
        length, comment = int.from_bytes(comment[:2], "little"), comment[2:]
        assert len(comment) >= length
        metadata = dict(sorted(json.loads(comment[:length] or "{}").items()))
        try:
            with open(path, "rb") as file, np.lib.npyio.NpzFile(file) as found:  # np.load, whatever the first bytes are
                return [dict(found), metadata]
        except EOFError:  # the packed size is wrong, and the content has its checksum
            found = {name.removesuffix(".npy"): content for name, content in unzipped(path).items()}
            return [{name: np.load(io.BytesIO(content)) for name, content in found.items()}, metadata]

    def wrap(self, inner):
        return zipped({"a.npy": inner})

    def make(self, rng):
        members = []
        for i in range(rng.choice([0, 1, 1, 2, 3])):
            content = npy(rng, array(rng))
            members.append((pick(rng, f"m{i}.npy", *NAMES), pick(rng, content, self.seeds[0], b"", chance=0.02)))
        if rng.random() < 0.03:
            members += members[:1] * rng.choice([1, 1, 100])
        return archive(rng, members)


DTYPES = {"u1": "U8", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64", "u4": "U32", "b1": "BOOL"}
DTYPES |= {"f2": "F16", "f4": "F32", "f8": "F64"}


class Safetensors(Target):
    ending = ".safetensors"

    def __init__(self):
        from safetensors.numpy import save

        tensors = {"w": np.arange(6, dtype="f4").reshape(2, 3), "flag": np.ones(3, bool), "n": np.zeros(0, "i8")}
        self.seeds = [save(tensors), save({}), save({"0.weight": np.ones((3, 2))}, {"by": "hand"})]
        self.inner = [seed[8 : 8 + seed[0]] + b"\n" + seed[8 + seed[0] :] for seed in self.seeds]

    def read(self, path):
        return [dict(sorted(tl.load(path).items())), tl.load_metadata(path)]

    def oracle(self, path):
        content = Path(path).read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        head, body = json.loads(content[8 : 8 + length]), content[8 + length :]
        metadata = dict(sorted((head.pop("__metadata__", None) or {}).items()))
        codes = {word: code for code, word in DTYPES.items()} | {"U16": "u2", "U64": "u8"}
        arrays = {
            name: np.frombuffer(body[slice(*entry["data_offsets"])], codes[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in sorted(head.items())
        }
        return [arrays, metadata]

    def wrap(self, inner):
        head, _, body = inner.partition(b"\n")
        return struct.pack("<Q", len(head)) + head + body

    def make(self, rng):
        entries, body = [], b""
        for i in range(rng.choice([0, 1, 1, 2, 3])):
            x = array(rng)
            words = [*DTYPES.values(), "BF16", "F8_E4M3", "C64", "F4", "f32", "", None, 7]
            offsets = [number(rng, len(body), 0.03), number(rng, len(body) + x.nbytes, 0.03)]
            shape = pick(rng, [number(rng, n, 0.03) for n in x.shape], [], None, [[]], "3", [0, 2**63])
            entry = {"dtype": pick(rng, DTYPES[x.dtype.str[1:]], *words), "shape": shape}
            entry["data_offsets"] = pick(rng, offsets, offsets[::-1], offsets[:1], None, [0.0, 1.0])
            entry = pick(rng, entry, {}, [], {**entry, "more": 1}, {"dtype": "F32"}, None)
            name = pick(rng, f"t{i}", "", "t0", "../x", "a\0b", "__metadata__", "é" * 500, "\x1b[31m\n" * 2000)
            entries.append(f"{json.dumps(name)}: {json.dumps(entry)}")
            body += x.tobytes()
        if rng.random() < 0.1:
            more = rng.choice(['{"a": "b"}', '{"a": 1}', "[]", '{"a": "b", "a": "c"}', "{" * 9])
            entries.append(f'"__metadata__": {more}')
        others = ["[" * 5000, '{"a":' * 2000, "", "null", '"\\ud800"', "1e999", "{} {}"]
        head = pick(rng, "{" + ", ".join(entries) + "}", *others, chance=0.04).encode()
        head = pick(rng, head, b"\xff" + head, b" " + head, head + b"\0", chance=0.02)
        head += b" " * rng.choice([0, -len(head) % 8])
        return field("<Q", number(rng, len(head))) + head + pick(rng, body, body[:-1], body + b"0")


SCALARS = (
    """1 -0.5 null true "s" NaN 1e999 -Infinity 170141183460469231731687303715884105728 "\\ud800" "\\u0000" """.split()
)


class Checkpoint(Target):
    ending = ".ckpt"

    def __init__(self):
        states = (
            {
                "model": {"w": np.arange(6.0).reshape(2, 3), 1: np.ones(2, bool)},
                "betas": (0.9, None),
                "names": ["a", True],
            },
            np.arange(3, dtype="f4"),
            {
                "random": {
                    "n": np.float32(0.5),
                    "bit_generator": "PCG64",
                    "state": {"state": 2**127 + 1, "inc": 5},
                    "has_uint32": 0,
                }
            },
        )
        with tempfile.TemporaryDirectory() as folder:
            self.seeds = []
            for state in states:
                tl.save_checkpoint(os.path.join(folder, "a"), state)
                self.seeds.append(Path(folder, "a").read_bytes())
        self.inner = []
        for seed in self.seeds:
            members = unzipped(io.BytesIO(seed))
            self.inner.append(members["state.json"] + b"\n" + members.get("0.npy", b""))

    def read(self, path):
        return tl.load_checkpoint(path)

    def oracle(self, path):
        def plain(value):
            if isinstance(value, list):
                return [plain(item) for item in value]
            if not isinstance(value, dict):
                return value
            if "array" in value:
                return np.load(io.BytesIO(members[f"{value['array']}.npy"]))
            if "scalar" in value:
                return np.frombuffer(bytes.fromhex(value["scalar"][1]), value["scalar"][0])[0]
            if "tuple" in value:
                return tuple(plain(item) for item in value["tuple"])
            return {key: plain(item) for key, item in value["dict"]}

        members = unzipped(path)
        return plain(json.loads(members["state.json"])["state"])

    def wrap(self, inner):
        head, _, body = inner.partition(b"\n")
        return zipped({"state.json": head, "0.npy": body})

    def make(self, rng):
        arrays = []

        def tree(depth):
            kind = rng.randrange(9 if depth else 5)
            if rng.random() < 0.1:
                value = array(rng).ravel()[:1]
                descr, digits = pick(rng, value.dtype.str, "|O", "<U1", "<c8", "", "f4,f4"), value.tobytes().hex()
                return json.dumps({"scalar": pick(rng, [descr, digits], [descr], digits, [7, digits], [descr, "zz"])})
            if kind == 0:
                arrays.append(array(rng))
                i = pick(rng, len(arrays) - 1, -1, 0, 99, "0", 0.5, None, "../0", True, 10**30, [0])
                return json.dumps({pick(rng, "array", "arrays"): i})
            if kind < 5:
                return rng.choice(SCALARS)
            items = [tree(depth - 1) for _ in range(rng.choice([0, 1, 2, 3]))]
            if kind == 5:
                return "[" + ", ".join(items) + "]"
            if kind == 6:
                return '{"tuple": ' + pick(rng, "[" + ", ".join(items) + "]", "null", "{}", '"ab"', "3") + "}"
            keys = [rng.choice([f'"k{i}"', str(i)]) for i in range(len(items))]
            keys = [pick(rng, key, "null", "[]", "{}", '"k0"', "1.5", "true") for key in keys]
            pairs = ", ".join(f"[{key}, {item}]" for key, item in zip(keys, items, strict=True))
            right, braces = f'{{"dict": [{pairs}]}}', f'{{"dict": {{{pairs}}}}}'
            return pick(rng, right, braces, '{"dict": [[1]]}', '{"dict": [], "tuple": []}', '{"a": 1, "a": 2}')

        deep = rng.choice([50, 1500, 9000])
        others = "[" * deep + "]" * deep, '{"tuple": [' * deep + "]}" * deep, "9" * 5000, '{"array": 0}'
        state, form = pick(rng, tree(3), *others, chance=0.03), pick(rng, f'"{FORMAT}"', "null", "7", chance=0.02)
        version = pick(rng, "1", "2", "0", "null", "1e9", "[]", chance=0.02)
        head = f'{{"format": {form}, "version": {version}, "state": {state}}}'
        others = head[:-1], "[]", "", "{}", head + " " + head, "\ufeff" + head, '{"format": 1, ' + head[1:]
        head = pick(rng, head, *others, chance=0.04)
        members = [(pick(rng, "state.json", *NAMES, chance=0.02), head.encode())]
        members += [(pick(rng, f"{i}.npy", *NAMES, chance=0.03), npy(rng, x)) for i, x in enumerate(arrays)]
        if rng.random() < 0.05:
            members.append(rng.choice(members))
        return archive(rng, members)


class Onnx(Target):
    ending = ".onnx"

    def __init__(self):
        from fuzz_onnx import models

        self.models = models()
        self.seeds = [model.SerializeToString() for model in self.models]
        self.inner = []

    def read(self, path):
        return list(tl.onnx.load(path).state_dict().values())

    def oracle(self, path):
        """The floats of a model, from its bytes."""
        import onnx
        from onnx import numpy_helper

        tensors = {t.name: t for t in onnx.load(path, "protobuf").graph.initializer}
        found = [numpy_helper.to_array(t) for t in tensors.values()]
        return [a for a in found if a.dtype.kind == "f"]

    def make(self, rng):
        from fuzz_onnx import poke

        model = rng.choice(self.models)
        twin = type(model)()
        twin.CopyFrom(model)
        for _ in range(rng.choice([1, 1, 2, 4])):
            poke(rng, twin, model)
        return twin.SerializeToString()


TARGETS = {"idx": Idx, "npz": Npz, "safetensors": Safetensors, "checkpoint": Checkpoint, "onnx": Onnx}
