"""All tests run on one thread: what is compared to the bit must not depend on how many there are."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for every process that a test starts

import pytest

from sgmcmc_prune import native


@pytest.fixture(scope="session")
def kernels() -> None:
    """The compiled kernels: skip where they were not built, and fail where the tests are the judge ($CI)."""
    try:
        native.load()
    except native.NativeUnavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"the tests run under $CI without the compiled tier: {reason}")
        pytest.skip(str(reason))
