"""What all tests share: compiled programs live no longer than the file that needed them."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _programs_end_with_their_file():
    """A process may map some 65,000 pieces of memory, each compiled program takes dozens."""
    yield
    jax.clear_caches()
