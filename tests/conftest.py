"""What all tests share: every member in turn; compiled programs live no longer than the file that needs them."""

import gc
import os
from pathlib import Path

# Tests compile far more than they run: without optimisations and with the plainer emitter a training program
# is compiled in a third of the time.
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    )
).strip()
# What one process or file has compiled, the next reads: a test file's programs are half of its processor time.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "programs")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's remarks on programs that it reads

import jax
import pytest
from cases import CASES, THOROUGH, TWINS, fitted

# Tracing makes millions of objects that live: looking through them for cycles every 700 is a seventh of the time.
gc.set_threshold(200_000, 20, 50)


@pytest.fixture(autouse=True, scope="module")
def _programs_end_with_their_file():
    """A process may map some 65,000 pieces of memory, and a compiled program takes hundreds."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="module", params=list(CASES))
def name(request):
    """Every case; what is no law is asked of one of two twins."""
    twin = TWINS.get(request.param)
    if twin and request.module.__name__ in ("test_traps", "test_impute") and not THOROUGH:
        pytest.skip(f"{twin} answers for both")
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
