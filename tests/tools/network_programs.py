"""Random networks as data, and as the program that all libraries run."""

import random
from dataclasses import dataclass, replace

import numpy as np
from network_libraries import Library
from network_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULES, TOKENS

import tinygrad_lenet as tl

STEPS = 10
MIDDLE = 4  # the step after which something happens
FILES = ("ckpt", "npz", "safetensors")
EVENTS = ("exchange", *FILES, "add", "remove", "by hand")


@dataclass(frozen=True)
class Part:
    """A row of a table: what it draws depends on its seed and on its input; ``without`` these options."""

    name: str
    seed: int = 0
    without: frozenset = frozenset()
    body: tuple = ()

    def text(self, row, *given, more=()):
        """The call, as in a program."""
        args, options = drawn(row, random.Random(self.seed), *given)
        shown = [*more, *map(repr, args)]
        shown += [f"{key}={value!r}" for key, value in options.items() if key not in self.without]
        return f"{self.name}({', '.join(shown)})"

    def options(self, row, *given):
        return drawn(row, random.Random(self.seed), *given)[1].keys() - self.without


def drawn(row, r, *given):
    """Positional arguments and options."""
    found = row(r, *given)
    return found if isinstance(found, tuple) else ((), found)


@dataclass(frozen=True)
class Case:
    """A network and its training, as data."""

    seed: int
    shape: tuple
    layers: tuple
    loss: Part
    optimizer: Part
    targets: int = 0  # which kind of those that the loss takes
    tokens: bool = False
    dtype: str = "float64"
    schedules: tuple = ()
    groups: int = 1
    frozen: str = ""  # "before" or "after" the optimiser is made
    clip: str = ""
    batches: int = 1
    evaluates: bool = False
    event: str = ""
    steps: int = STEPS


class Unfit(Exception):
    """No such network can be built."""


# A case as a program


def layer_text(part, kind, shape):
    """The text of a layer and the shape of its output, from a run in evaluation on zeros."""
    if part.body or part.name not in LAYERS:
        texts, kind, shape = stack_texts(part.body, kind, shape)
        if part.name in ("Residual", "Twice", "Chain", "Spare", "Sequential") and not texts:
            raise Unfit(part.name)
        return f"nn.{part.name}({', '.join(texts)})", kind, shape
    row = LAYERS[part.name]
    if kind not in row.kinds or (row.shape and shape[1:] != row.shape):
        raise Unfit(f"{part.name} of {kind}, {shape}")
    text = "nn." + part.text(row.draw, shape)
    text = f"nn.{row.block}({text})" if row.block else text
    lib = PROBE
    module = eval(text, {"nn": lib.nn, "lib": lib}).eval()
    x = tl.zeros(*shape, dtype="int64") if kind == TOKENS else tl.zeros(*shape)
    with tl.no_grad(), np.errstate(all="ignore"):
        shape = module(x).shape
    return text, len(shape), shape


def stack_texts(layers, kind, shape):
    texts = []
    for part in layers:
        text, kind, shape = layer_text(part, kind, shape)
        texts.append(text)
    return texts, kind, shape


PROBE = Library(0, "float32")


def trained(texts):
    """How many parameters the layers use."""
    model = eval(f"nn.Sequential({', '.join(texts)})", {"nn": PROBE.nn})
    return sum("unused" not in name for name, _ in model.named_parameters())


def model_texts(case):
    """The layers, one text each, and the shape that comes out of a batch of two."""
    kind = TOKENS if case.tokens else len(case.shape)
    texts, kind, shape = stack_texts(case.layers, kind, (2, *case.shape[1:]))
    if trained(texts) < (1 if case.event != "add" else 3 if case.frozen else 2):
        raise Unfit("nothing to train")
    if kind == TOKENS or len(shape) not in LOSSES[case.loss.name].ranks:
        raise Unfit("the loss")
    return texts, shape


def optimizer_text(case):
    row = OPTIMIZERS[case.optimizer.name]
    params = "p" if case.event != "add" else "p[1:]"
    params = f"[q for q in {params} if q.requires_grad]" if case.frozen == "before" else params
    if case.groups > 1:
        r = random.Random(case.optimizer.seed + 1)
        others = [some_of(row(r, case.dtype), r) for _ in range(case.groups - 1)]
        groups = [f'{{"params": q[::{case.groups}]}}']
        for i, options in enumerate(others):
            shown = ", ".join([f'"params": q[{i + 1}::{case.groups}]', *(f'"{k}": {v!r}' for k, v in options.items())])
            groups.append("{" + shown + "}")
        params, more = [f"q = {params}"], "[" + ", ".join(groups) + "]"
        return [*params, f"optimizer = optim.{case.optimizer.text(row, case.dtype, more=[more])}"]
    return [f"optimizer = optim.{case.optimizer.text(row, case.dtype, more=[params])}"]


def some_of(options, r):
    """The options that another group may have for itself."""
    return {k: v for k, v in options.items() if k in ("lr", "weight_decay", "eps", "alpha") and r.random() < 0.7}


def schedule_text(part, cycles=True):
    if part.name == "SequentialLR":
        inner = [schedule_text(p) for p in part.body]
        milestones = sorted(random.Random(part.seed).sample(range(1, STEPS), len(inner) - 1))
        return f"optim.SequentialLR(optimizer, [{', '.join(inner)}], {milestones})"
    if part.name == "OneCycleLR" and not cycles:  # Adagrad has no momentum
        row = lambda r: {**SCHEDULES[part.name](r), "cycle_momentum": False}  # noqa: E731
        part = replace(part, without=part.without - {"cycle_momentum"})
    else:
        row = SCHEDULES[part.name]
    return "optim." + part.text(row, more=["optimizer"])


def program(case):
    """The text of the function that the libraries run."""
    texts, shape = model_texts(case)
    model = f"nn.Sequential({', '.join(texts)})"
    if len(model) > 90:
        model = "nn.Sequential(" + "".join(f"\n            {text}," for text in texts) + "\n        )"
    schedules = ", ".join(schedule_text(s, case.optimizer.name != "Adagrad") for s in case.schedules)
    freeze = ["for q in p[1::3]:", "    q.requires_grad = False"] if case.frozen else []
    made = [
        f"model = lib.ready({model})",
        "p = list(model.parameters())",
        *(freeze if case.frozen == "before" else ()),
        *optimizer_text(case),
        *(freeze if case.frozen == "after" else ()),
        f"return model, optimizer, [{schedules}]",
    ]
    row = LOSSES[case.loss.name]
    kind = row.targets[case.targets % len(row.targets)]
    loss = case.loss
    if kind == "probabilities":  # of classes some may be ignored
        loss = replace(loss, without=loss.without | {"ignore_index"})
    inputs = [repr(case.shape)]
    inputs += [f"batches={case.batches}"] if case.batches > 1 else []
    inputs += ["tokens=True"] if case.tokens else []
    clip = {"": [], "value": ["lib.clip_values(model.parameters(), 0.05)"]}.get(
        case.clip, [f"lib.clip(model.parameters(), 0.5{case.clip})"]
    )
    loop = [
        *(["model.train(t % 3 != 2)"] if case.evaluates else []),
        "optimizer.zero_grad()",
        f"for x in lib.inputs({', '.join(inputs)}):",
        f'    lib.learn(model, x, loss, "{kind}")',
        *clip,
        "optimizer.step()",
        *(["for schedule in schedules:", "    lib.advance(schedule, t)"] if case.schedules else []),
        "yield model, optimizer",
    ]
    happens = {
        "add": ['optimizer.add_param_group({"params": list(model.parameters())[:1], "lr": 0.02})'],
        "remove": ['optimizer.param_groups[0]["params"].pop(0)'],
        "by hand": ['optimizer.param_groups[0]["lr"] *= 0.5'],
        **{
            ending: [f'model, optimizer, schedules = lib.resume(build, model, optimizer, schedules, "{ending}")']
            for ending in FILES
        },
    }.get(case.event, [])
    loop += [f"if t == {MIDDLE}:", *("    " + line for line in happens)] if happens else []
    lines = ["nn, optim = lib.nn, lib.optim", "", "def build():", *("    " + line for line in made), ""]
    lines += ["model, optimizer, schedules = build()", f"loss = nn.{loss.text(row.draw, shape)}"]
    lines += [f"for t in range({case.steps}):", *("    " + line for line in loop)]
    return "\n".join(["def run(lib):", *("    " + line if line else "" for line in lines)]) + "\n"
