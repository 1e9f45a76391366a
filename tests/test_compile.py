"""Stories of a training step, told with an eager and with a compiled function: the same bits, replayed or refused."""

import threading
import warnings

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim
from tinygrad_lenet.replay import Compiled


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, generator=0), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(0.3, generator=5), nn.Linear(64, 10, generator=1),
    )  # fmt: skip


def momentum(params):
    return optim.SGD(params, lr=0.05, momentum=0.9)


def batch(k, n=6, dtype=np.float32):
    rng = np.random.default_rng(k)
    return tl.tensor(rng.standard_normal((n, 1, 8, 8)).astype(dtype)), tl.tensor(rng.integers(0, 10, n))


class World:
    """A model, its optimiser and a step, compiled or not, and a log of what happened."""

    def __init__(self, compiled, story):
        self.model = story.model()
        self.optimizer = story.optimizer(self.model.parameters())
        self.log = []
        step = story.body(self)
        self.step = tl.compile(step) if compiled else step

    def note(self, *values):
        self.log += [None if v is None else np.array(v.detach() if isinstance(v, tl.Tensor) else v) for v in values]

    def go(self, numbers, n=6, dtype=np.float32):
        for k in numbers:
            self.note(self.step(*batch(k, n, dtype)))

    def end(self):
        self.note(*self.model.state_dict().values(), *[p.grad for p in self.model.parameters()])

    def update(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss


def usual(s):
    return lambda x, y: s.update(tl.cross_entropy(s.model(x), y))


class Story:
    def __init__(self, tell, body=usual, model=network, optimizer=momentum, traces=2, refusal=""):
        self.tell, self.body, self.model, self.optimizer = tell, body, model, optimizer
        self.traces, self.refusal = traces, refusal


def run(numbers, **options):
    return Story(lambda s: s.go(numbers), **options)


STORIES = {"six steps": run(range(6))}


def story(**options):
    """Add a story, told by a function of a World."""

    def add(tell):
        STORIES[tell.__name__.replace("_", " ")] = Story(tell, **options)
        return tell

    return add


@pytest.mark.parametrize("name", STORIES)
def test_a_compiled_step_has_the_same_bits(name):
    told, worlds = STORIES[name], []
    for compiled in (False, True):
        world = World(compiled, told)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            told.tell(world)
        world.end()
        worlds.append(world)
    eager, replayed = worlds
    assert len(eager.log) == len(replayed.log)
    for a, b in zip(eager.log, replayed.log, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    texts = [str(w.message) for w in warned if "tl.compile" in str(w.message)]
    if told.refusal:
        assert len(texts) == 1
        assert told.refusal in texts[0]
        assert f"{__file__}, line " in texts[0]
    else:
        assert not texts
        assert replayed.step.replayed > 0
        assert replayed.step.traced == told.traces


@story(traces=4)
def shapes_change(s):
    s.go(range(3))
    s.go(range(3, 6), 4)
    s.go(range(6, 9))


@story(traces=4)
def dtype_changes(s):
    s.go(range(3))
    s.go(range(3, 6), dtype=np.float64)
    s.go(range(6, 9))


@story(traces=4)
def evaluation_mode_and_back(s):
    s.go(range(3))
    s.model.eval()
    s.go(range(3, 6))
    s.model.train()
    s.go(range(6, 9))


@story(traces=4)
def a_parameter_is_replaced(s):
    s.go(range(3))
    s.model[6].weight = nn.Parameter(np.full((10, 64), 0.01, np.float32))
    s.optimizer.param_groups[0]["params"] = list(s.model.parameters())
    s.go(range(3, 6))


@story(traces=4)
def a_layer_is_replaced(s):
    s.go(range(3))
    setattr(s.model, "2", nn.Tanh())
    s.go(range(3, 6))


@story()
def a_schedule(s):
    schedule = optim.StepLR(s.optimizer, 2, 0.5)
    for k in range(8):
        s.go([k])
        schedule.step()


@story()
def options_of_the_optimizer_change(s):
    s.go(range(3))
    s.optimizer.param_groups[0]["weight_decay"] = 0.1
    s.go(range(3, 6))
    s.optimizer.param_groups[0]["nesterov"] = True
    s.go(range(6, 8))


@story(traces=4)
def requires_grad_off_and_on(s):
    s.go(range(3))
    s.model[0].weight.requires_grad = False
    s.go(range(3, 6))
    s.model[0].weight.requires_grad = True
    s.go(range(6, 8))


@story()
def states_are_loaded(s):
    s.go(range(3))
    weights, state = s.model.state_dict(), s.optimizer.state_dict()
    s.go(range(3, 6))
    s.model.load_state_dict(weights)
    s.optimizer.load_state_dict(state)
    s.go(range(6, 9))


@story(traces=4)
def the_rate_of_dropout_changes(s):
    s.go(range(3))
    s.model[5].p = 0.6
    s.go(range(3, 6))


@story(traces=4)
def a_generator_is_replaced(s):
    s.go(range(3))
    s.model[5].generator = np.random.default_rng(99)
    s.go(range(3, 6))


@story()
def the_user_holds_gradients_and_losses(s):
    held = []
    for k in range(5):
        held.append(s.step(*batch(k)))
        held.append(s.model[0].weight.grad)
    s.note(*held)


STORIES["Adam"] = run(range(6), optimizer=lambda params: optim.Adam(params, lr=1e-3))
STORIES["AdamW"] = run(range(6), optimizer=lambda params: optim.AdamW(params, lr=1e-3, amsgrad=True))
STORIES["RMSprop"] = run(range(6), optimizer=lambda params: optim.RMSprop(params, lr=1e-3, momentum=0.5))


def two_rates(params):
    first, *rest = params
    return optim.SGD([{"params": [first]}, {"params": rest, "lr": 0.3}], lr=0.05, momentum=0.9)


STORIES["two groups"] = run(range(6), optimizer=two_rates)


def accumulating(s):
    def step(x, y):
        loss = tl.cross_entropy(s.model(x), y)
        loss.backward()
        return loss

    return step


@story(body=accumulating, traces=4)
def gradients_accumulate_over_calls(s):
    s.go(range(6))
    s.optimizer.step()
    s.optimizer.zero_grad()
    s.go(range(6, 12))


def twice(s):
    def step(x, y):
        s.optimizer.zero_grad()
        first = tl.cross_entropy(s.model(x), y)
        first.backward()
        second = tl.cross_entropy(s.model(x * 2), y)
        second.backward()
        s.optimizer.step()
        return first.detach() + second.detach()

    return step


def clipped(s):
    def step(x, y):
        loss = tl.cross_entropy(s.model(x), y)
        s.optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(s.model.parameters(), 0.5)
        s.optimizer.step()
        return loss

    return step


def with_loss(loss):
    return lambda s: lambda x, y: s.update(loss(s.model(x), y))


STORIES["two backward passes"] = run(range(6), body=twice)
STORIES["clipped gradients"] = run(range(6), body=clipped)
STORIES["label smoothing"] = run(range(6), body=with_loss(lambda z, y: tl.cross_entropy(z, y, label_smoothing=0.1)))
STORIES["ignored labels"] = run(range(9), body=with_loss(lambda z, y: tl.cross_entropy(z, y, ignore_index=3)))
WEIGHT = tl.arange(10.0) + 1
STORIES["class weights"] = run(range(6), body=with_loss(lambda z, y: tl.cross_entropy(z, y, weight=WEIGHT)))


# What cannot be replayed


def seen(s):
    def step(x, y):
        loss = s.update(tl.cross_entropy(s.model(x), y))
        s.last = loss.item()
        return loss

    return step


def branch(s):
    def step(x, y):
        loss = tl.cross_entropy(s.model(x), y)
        if loss > 2.3:
            loss = loss * 2
        return s.update(loss)

    return step


def own_noise(s):
    rng = np.random.default_rng(4)

    def step(x, y):
        noise = tl.tensor(rng.standard_normal(x.shape).astype(np.float32))
        return s.update(tl.cross_entropy(s.model(x + noise), y))

    return step


def noise_of_the_package(s):
    rng = np.random.default_rng(4)
    return lambda x, y: s.update(tl.cross_entropy(s.model(x + tl.randn(*x.shape, generator=rng)), y))


def counter(s):
    s.count = 0

    def step(x, y):
        s.count += 1
        return s.update(tl.cross_entropy(s.model(x), y) * (1.0 + s.count))

    return step


STORIES["item() inside"] = run(range(5), body=seen, refusal="item() reads the values of a tensor")
STORIES["a branch on a value"] = run(range(5), body=branch, refusal="bool() reads the values of a tensor")
STORIES["noise of NumPy"] = run(range(5), body=own_noise, refusal="add gets another number, array or option at the")
STORIES["noise of the package"] = run(range(5), body=noise_of_the_package)
STORIES["a count in Python"] = run(range(5), body=counter, refusal="mul gets another number, array or option at the")


@story(refusal="a hook receives a gradient")
def a_hook_from_the_beginning(s):
    s.model[0].weight.register_hook(lambda g: g * 0.5)
    s.go(range(4))


@story(traces=3, refusal="a hook receives a gradient")
def a_hook_later(s):
    s.go(range(3))
    s.model[0].weight.register_hook(lambda g: g * 0.5)
    s.go(range(3, 6))


FACTOR = 1.0


@story(body=lambda s: lambda x, y: s.update(tl.cross_entropy(s.model(x), y) * FACTOR), traces=4)
def a_global_number_changes(s):
    global FACTOR
    FACTOR = 1.0
    s.go(range(3))
    FACTOR = 3.0
    s.go(range(3, 6))


@story()
def a_label_that_is_no_class(s):
    s.go(range(3))
    for _ in range(2):
        with pytest.raises(tl.ArgumentError, match="a target is 77"):
            s.step(batch(9)[0], tl.tensor(np.array([1, 2, 3, 4, 5, 77])))
    s.go(range(4, 6))


# Other functions than a whole step


@story(body=lambda s: lambda x, y: s.model(x))
def a_forward_pass_whose_loss_is_outside(s):
    for k in range(6):
        x, y = batch(k)
        s.note(s.update(tl.cross_entropy(s.step(x, y), y)))


@story(body=lambda s: lambda x, y: s.model(x))
def two_forward_passes_before_a_backward_pass(s):
    s.model.eval()
    for k in range(5):
        (x, y), (v, w) = batch(k), batch(k + 50)
        s.note(s.update(tl.cross_entropy(s.step(x, y), y) + tl.cross_entropy(s.step(v, w), w)))


@story(body=lambda s: lambda x, y: s.model(x))
def the_gradient_of_the_images(s):
    s.model.eval()
    for k in range(5):
        x, y = batch(k)
        x.requires_grad = True
        loss = tl.cross_entropy(s.step(x * 2, y), y)
        loss.backward(retain_graph=True)
        loss.backward()
        s.note(x.grad)


def inference(s):
    @tl.no_grad()
    def step(x, y):
        return s.model(x)

    return step


@story(body=inference, traces=4)
def inference_in_both_modes(s):
    s.model.eval()
    s.go(range(4))
    s.model.train()
    s.go(range(4))
    s.model.eval()
    s.go(range(4))


def value_and_gradient(s):
    def step(x, y):
        value, gradient = tl.value_and_grad(lambda x: (s.model(x) ** 2).mean())(x)
        return value.detach() + gradient.detach()

    return step


def penalty(s):
    def step(x, y):
        x = x.detach()
        x.requires_grad = True
        loss = tl.cross_entropy(s.model(x), y)
        (gradient,) = tl.grad([loss], [x], create_graph=True)
        return s.update(loss + (gradient * gradient).sum() * 0.1)

    return step


STORIES["a value and its gradient"] = run(range(5), body=value_and_gradient)
STORIES["a penalty on the gradient"] = run(range(5), body=penalty)
STORIES["checkpoint"] = run(
    range(5), body=lambda s: lambda x, y: s.update(tl.cross_entropy(tl.checkpoint(s.model, x), y))
)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.memory = nn.Embedding(10, 8, generator=0), nn.GRU(8, 12, generator=1)
        self.head = nn.Linear(12, 10, generator=2)

    def forward(self, words):
        return self.head(self.memory(self.embedding(words))[0][:, -1])


@story(model=Words)
def words(s):
    for k in range(5):
        rng = np.random.default_rng(k)
        s.note(s.step(tl.tensor(rng.integers(0, 10, (4, 5))), tl.tensor(rng.integers(0, 10, 4))))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Linear(8, 8, generator=0), nn.Linear(8, 8, generator=1)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(64, 10, generator=2)

    def forward(self, x):
        x = x[:, 0]
        mixed = tl.softmax(self.query(x) @ self.key(x).transpose(1, 2)) @ x
        return self.head(tl.flatten(tl.functional.gelu(self.norm(mixed)), 1))


STORIES["attention"] = run(range(5), model=Attention)


def test_two_threads_may_call_one_compiled_function():
    s = World(True, STORIES["six steps"])
    done = []

    def work():
        for k in range(20):
            s.step(*batch(k))
            done.append(k)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 40
    assert isinstance(s.step, Compiled)
