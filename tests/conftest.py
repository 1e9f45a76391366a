"""What all tests share: how thorough hypothesis is, and PyTorch as an oracle where it is installed."""

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for name, examples in (("dev", 25), ("ci", 50), ("thorough", 2000)):
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        derandomize=name == "ci",
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


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
