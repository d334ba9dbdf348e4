"""What all tests share: every member in turn; compiled programs live no longer than the file that needs them."""

import os
import tempfile

# What one file of tests compiled, another and every process that a test starts find on disk; set before jax is read.
_PROGRAMS = tempfile.TemporaryDirectory(prefix="diabolo-programs-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _PROGRAMS.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax  # noqa: E402
import pytest  # noqa: E402
from cases import CASES, fitted  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def _programs_end_with_their_file():
    """A process may map some 65,000 pieces of memory, and a compiled program takes hundreds."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module", params=list(CASES))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def case(name):
    return CASES[name]


@pytest.fixture(scope="module")
def on_points(name):
    return fitted(name, "points")


@pytest.fixture(scope="module")
def on_mixed(name):
    return fitted(name, "mixed")
