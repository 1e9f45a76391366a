"""Errors repeat what a file or a caller gave only in part, on one line, and without control characters."""

import inspect
import io
import json
import struct
import traceback
import warnings
import zipfile

import hostile
import numpy as np
import pytest
import test_bad_input
import test_bad_modules
import test_bad_objects
from hostile import materialise
from hostile_text import ESCAPES, LONG, LONGEST, VALUES, check_message
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.data import read_idx
from tinygrad_lenet.errors import brief, listing, printable
from tinygrad_lenet.serialization import FORMAT

THOROUGH = settings().max_examples >= 1000
FUNCTIONS = {}
for _key, _function in test_bad_input.PRIMITIVES.items():
    FUNCTIONS[_key] = _function, _function.op.cases, test_bad_input.INNER.get(_key, ("at",))
for _key, _calls in test_bad_input.CALLS.items():
    FUNCTIONS[_key] = test_bad_input._public(_key), _calls, ()
for _key, (_function, _calls) in test_bad_input.OTHERS.items():
    FUNCTIONS[_key] = _function, _calls, test_bad_input.KEEP.get(_key, ())
for _name, _function, _calls, _, _keep, _ in (*test_bad_modules.CASES, *test_bad_objects.CASES):
    FUNCTIONS[f"{_name} of {len(FUNCTIONS)}"] = _function, _calls, _keep


@pytest.mark.parametrize("key", FUNCTIONS)
def test_no_argument_is_repeated_in_full(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, calls, keep = FUNCTIONS[key]
    names = [*hostile.parameters_of(function)]
    parameters = hostile.parameters_of(function)
    args, kwargs = calls[-1]
    defaults = [n for n, p in parameters.items() if p.default is not inspect.Parameter.empty and n not in kwargs]
    faults, turn = [], len(key)
    for place in [*range(len(args)), *kwargs, *(n for n in defaults if n not in names[: len(args)])]:
        if (place if isinstance(place, str) else names[place] if place < len(names) else "") in keep:
            continue
        turn += 1
        for name, make in [*VALUES.items()][:: 1 if THOROUGH else -(turn % 3 + 2)]:
            given = list(materialise(args)), dict(materialise(tuple(kwargs.items())))
            given[isinstance(place, str)][place] = make()
            try:
                with hostile.time_limit(2), np.errstate(all="ignore"):
                    function(*given[0], **given[1])
            except Exception as error:
                try:
                    check_message(error)
                except AssertionError as fault:
                    faults.append(f"{place} is {name}: {fault}")
            except hostile.Hung:
                pass  # a Jacobian of so many numbers takes its time
    assert faults == []


NAMES = {"long": "n" * 1_000_000, "escapes": ESCAPES[:-4] * 3000, "short escapes": "a\x1b[31m\r\nTraceback (most"}


def archive(members, method=0):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members:
            with warnings.catch_warnings(action="ignore"):  # of a name that is there already
                file.writestr(zipfile.ZipInfo(name[:60_000]), content, method)
    return stream.getvalue()


def npy(descr="<f4", shape="(2,)", body=bytes(8), version=b"\1\0"):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode("utf-8", "replace")
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(header) % 65536 if version == b"\1\0" else len(header))
    return b"\x93NUMPY" + version + size + header + body


def checkpoint(state, **head):
    text = json.dumps({"format": FORMAT, "version": 1, "state": state, **head})
    return archive([("state.json", text), ("0.npy", npy())])


def safetensors(header, body=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def files(n):
    """Files with a hostile text at every place that may hold one."""
    yield ".npz", archive([(n, b"none")])
    yield ".npz", archive([(n + ".npy", npy()), (n + ".npy", npy())])
    yield ".npz", archive([(n, b"x" * 99)], zipfile.ZIP_BZIP2)
    yield ".npz", archive([(n, npy())])[:-30]
    yield ".npz", archive([("a.npy", npy(descr=n))])
    yield ".npz", archive([("a.npy", npy(descr=n, version=b"\2\0"))])
    yield ".npz", archive([("a.npy", npy(shape=n[:9000]))])
    yield ".npz", archive([("a.npy", npy(shape="(" + "1," * 4000 + ")"))])
    yield ".npz", archive([("a.npy", npy(shape=f"({'9' * 5000},)"))])
    yield ".npz", archive([("a.npy", npy(descr=[(n[:5000], "<f4")]))])
    yield ".npz", n.encode("utf-8", "replace")
    yield ".ckpt", checkpoint({n: 1})
    yield ".ckpt", checkpoint({"dict": [[n, {"array": n}]]})
    yield ".ckpt", checkpoint({"array": n})
    yield ".ckpt", checkpoint({"scalar": [n, n]})
    yield ".ckpt", checkpoint({"scalar": ["<f4", n]})
    yield ".ckpt", checkpoint({"dict": [[n, 1], [n, 2]]})
    yield ".ckpt", checkpoint(1, version=n)
    yield ".ckpt", checkpoint(1, version=10**4000)
    yield ".ckpt", checkpoint(1, format=n)
    yield ".ckpt", archive([("state.json", n.encode("utf-8", "replace"))])
    yield ".ckpt", archive([("state.json", '{"a": ' + "9" * 5000)])
    yield ".safetensors", safetensors({n: {"dtype": n, "shape": [1], "data_offsets": [0, 4]}}, bytes(4))
    yield ".safetensors", safetensors({n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4))
    yield ".safetensors", safetensors({n: {"dtype": "F32", "shape": [1], n: [0, 4]}}, bytes(4))
    yield ".safetensors", safetensors({n: {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, bytes(4))
    yield ".safetensors", safetensors({"__metadata__": {n: 1}})
    yield ".safetensors", safetensors(n)
    yield ".idx", n.encode("utf-8", "replace")
    yield ".idx", b"\0\0\x08\xff" + b"\xff" * 4 * 255
    yield ".idx", b"\x1f\x8b\x08\x08" + bytes(6) + n.encode("utf-8", "replace")
    yield from ((".onnx", content) for content in onnx_files(n))


def onnx_files(n):
    onnx = pytest.importorskip("onnx", reason="ONNX is not installed")
    n = n.encode("utf-8", "replace").decode()
    text = onnx.TensorProto(name=n, data_type=1, dims=[2], raw_data=bytes(7))
    changes = [
        lambda m, g, node: setattr(node, "op_type", n),
        lambda m, g, node: setattr(node, "domain", n),
        lambda m, g, node: setattr(node, "name", n) or setattr(node, "op_type", "Nonsense"),
        lambda m, g, node: setattr(m.opset_import[0], "domain", n),
        lambda m, g, node: m.opset_import.add(domain=n, version=1) and setattr(node, "domain", n),
        lambda m, g, node: node.attribute.append(onnx.helper.make_attribute(n, 1)),
        lambda m, g, node: node.attribute.append(onnx.helper.make_attribute("axis", n)),
        lambda m, g, node: node.attribute.append(onnx.helper.make_attribute("axes", [n[:10_000]] * 300)),
        lambda m, g, node: node.input.append(n),
        lambda m, g, node: node.input.__setitem__(0, n),
        lambda m, g, node: node.output.append(n),
        lambda m, g, node: g.initializer.append(text),
        lambda m, g, node: setattr(g.input[0], "name", n),
        lambda m, g, node: setattr(g.output[0], "name", n),
        lambda m, g, node: setattr(m, "producer_name", n) or setattr(node, "op_type", n),
        lambda m, g, node: setattr(g, "name", n) or setattr(m, "ir_version", 999),
        lambda m, g, node: setattr(g, "doc_string", n) or node.input.append("nowhere"),
        lambda m, g, node: g.input[0].type.tensor_type.shape.dim.add(dim_param=n) and node.input.append("nowhere"),
        lambda m, g, node: external(g, n),
        lambda m, g, node: m.functions.add(name=n, domain=n, input=[n]),
    ]
    for change in changes:
        model = tl.onnx.export(nn.Linear(2, 2, generator=0), tl.zeros(1, 2), None)
        change(model, model.graph, model.graph.node[0])
        yield model.SerializeToString()


def external(graph, name):
    tensor = graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value=name)
    tensor.external_data.add(key=name, value=name)


READERS = {".ckpt": tl.load_checkpoint, ".idx": read_idx, ".onnx": lambda path: tl.onnx.load(path)}


def shown(error):
    """The text of a traceback without its frames."""
    return "".join(traceback.TracebackException.from_exception(error, limit=0).format())


@pytest.mark.parametrize("text", NAMES)
def test_no_file_writes_a_message(tmp_path, text):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    refused = 0
    for i, (ending, content) in enumerate(files(NAMES[text])):
        path = tmp_path / f"{i}{ending}"
        path.write_bytes(content)
        error = found = None
        try:
            found = READERS.get(ending, tl.load)(path)
        except tl.TinygradLenetError as refusal:
            error = refusal
        if error is not None:
            check_message(error)
            assert str(path) in str(error)
            assert len(shown(error)) < 4 * LONGEST
            refused += 1
        else:  # right, but for its names: used otherwise than it can be
            for use in (lambda found=found: found(), lambda found=found: nn.Linear(2, 2).load_state_dict(found)):
                with pytest.raises((tl.TinygradLenetError, TypeError)) as caught:
                    use()
                if isinstance(caught.value, tl.TinygradLenetError):
                    check_message(caught.value)
    assert refused > 40


def test_an_operator_of_a_file_that_fails_is_named_in_part():
    onnx = pytest.importorskip("onnx", reason="ONNX is not installed")
    model = tl.onnx.export(nn.Linear(2, 2, generator=0), tl.zeros(1, 2), None)
    for node in model.graph.node:
        node.input[:] = ["i" * 10**6 if name == "input" else name for name in node.input]
        node.output[:] = ["o\n" * 10**6 if name == "gemm" else name for name in node.output]
    model.graph.node[1].input[:] = model.graph.node[0].output
    model.graph.input[0].name = "i" * 10**6
    assert onnx.checker.check_model(model) is None
    module = tl.onnx.load(model)
    for inputs in ((), (tl.zeros(3, 3),), (tl.zeros(1, 2), tl.zeros(1, 2)), ("x" * 10**6,), (np.array(["x" * 10**6]),)):
        with pytest.raises(tl.TinygradLenetError) as caught:
            module(*inputs)
        check_message(caught.value)
    assert caught.value is not None


@pytest.mark.parametrize("name", NAMES)
def test_states_with_hostile_names_or_many(name):
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(600)))
    text = NAMES[name]
    states = [{}, {text: np.zeros(1)}, {text + str(i): np.zeros(1) for i in range(30)}]
    states += [{i: np.zeros(1) for i in range(10_000)}, {key: np.zeros(9) for key in model.state_dict()}]
    for state in states:
        with pytest.raises(tl.TinygradLenetError) as caught:
            model.load_state_dict(state)
        check_message(caught.value)
    with pytest.raises(tl.TinygradLenetError, match=r"missing: 0\.weight, 0\.bias, .*, \.\.\. \(1,200 in all\)"):
        model.load_state_dict({})
    optimizer = tl.optim.SGD(model.parameters(), lr=0.1)
    for state in ({text: 1}, {"param_groups": [{text: 1}], "state": {}}, {"param_groups": text, "state": {text: text}}):
        with pytest.raises(tl.TinygradLenetError) as caught:
            optimizer.load_state_dict(state)
        check_message(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_other_words_of_a_caller(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = NAMES[name] + "/nowhere"
    x = tl.ones(2, 2)
    calls = [
        lambda: tl.sum(x, **{text: 1}),
        lambda: tl.einsum(text, x, x),
        lambda: tl.einsum(text + "->" + text, x),
        lambda: tl.mean(x, axis=text),
        lambda: nn.Sequential({text: 1}),
        lambda: tl.save(tmp_path / "a.npz", {text: text}),
        lambda: tl.save(text + ".npz", {}),
        lambda: tl.load(text),
        lambda: tl.load(text + ".npz"),
        lambda: tl.load_checkpoint(text),
        lambda: read_idx(text),
        lambda: tl.onnx.load(text),
        lambda: tl.onnx.export(nn.ReLU(), x, text),
        lambda: tl.save_checkpoint(tmp_path / "a", {text: {text: object()}}),
        lambda: tl.data.MNIST(text, download=False),
        lambda: tl.tensor([text]),
        lambda: x[text],
        lambda: x.astype(text),
        lambda: nn.init.calculate_gain(text),
        lambda: tl.visualize.graph((x.astype("f8") * tl.ones(2, requires_grad=True)).sum()).save(text),
        lambda: tl.tensor(text),
    ]
    for i, use in enumerate(calls):
        with pytest.raises((tl.TinygradLenetError, TypeError, OSError)) as caught:
            use()
        check_message(caught.value)
        assert len(str(caught.value)) <= LONGEST * 1.05, i


def test_a_message_of_many_lines_is_for_mirrors_only():
    assert str(tl.DataError("a\n  b\n\nc")) == "a b c"
    assert str(tl.DownloadError("a\n  b\x1b")) == "a\n  b\\x1b"
    error = tl.DataError("x")
    error.add_note(LONG + "\n")
    check_message(error)


@given(st.text(max_size=50), st.integers(0, 100_000))
def test_printable_text_is_printable_and_says_the_same(text, times):
    found = printable(text * times)
    assert found.isprintable()
    assert len(found) <= LONGEST
    assert printable(found) == found
    if text.isprintable() and len(text * times) <= LONGEST:
        assert found == text * times


@given(
    st.recursive(
        st.text() | st.binary() | st.integers() | st.floats(), lambda inner: st.lists(inner) | st.tuples(inner)
    )
)
def test_brief_texts_are_short_and_printable(value):
    assert len(brief(value)) <= 400
    assert brief(value).isprintable()
    assert len(listing([value] * 10_000)) < 2000
