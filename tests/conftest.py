"""What all tests share: how thorough hypothesis is, no network, and PyTorch as an oracle where it is installed."""

import importlib.util
import os
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tinygrad_lenet.core.names import import_all

import_all()  # many tests go through all ops and names; test_first_use.py begins without them

for name, examples in (("dev", 25), ("ci", 50), ("thorough", 2000)):
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        derandomize=name == "ci",
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def _own(host):
    """Whether a host is this machine, by address or name."""
    name = host.decode() if isinstance(host, bytes) else host
    return name in (None, "", "localhost", "::1", socket.gethostname()) or name.startswith("127.")


@pytest.fixture(scope="session", autouse=True)
def _no_network():
    """Whoever wants to reach another machine fails: no test needs one, or notices whether there is any."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded(function):
        def call(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6):
                assert _own(address[0]), f"a test asks the network: connect to {address}"
            return function(self, address)

        return call

    def own(host, *args, **kwargs):
        assert _own(host), f"a test asks the network: where is {host}"
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(connect))
        patch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
        patch.setattr(socket, "getaddrinfo", own)
        yield


@pytest.fixture(autouse=True)
def _unseeded():
    """``manual_seed`` of one test is not for the next."""
    if "tinygrad_lenet.ops.creation" in sys.modules:
        sys.modules["tinygrad_lenet.ops.creation"].SHARED.clear()


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, an oracle, is not installed")


@pytest.fixture(scope="session")
def mnist():
    """The folder of the real images."""
    folder = Path(__file__).parents[1] / "examples" / "data" / "mnist"
    if not folder.exists():
        pytest.skip("MNIST, which the repository has and a release has not, is not here")
    return folder


def pytest_collection_modifyitems(items):
    """Examples of what an absent extra is for."""
    if importlib.util.find_spec("onnx") is None:
        for item in items:
            if item.name.startswith("tinygrad_lenet.onnx."):
                item.add_marker(pytest.mark.skip("ONNX is not installed"))
