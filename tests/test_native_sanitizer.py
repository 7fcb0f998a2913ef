"""The kernels under AddressSanitizer and UBSan: nothing outside a tensor is touched, and nothing is undefined."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sgmcmc_prune.native import library

TESTS = Path(__file__).parent
FLAGS = ["-O1", "-g", "-march=native", "-std=gnu11", "-ffp-contract=off", "-fopenmp", "-shared", "-fPIC"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

#: A process whose kernels are those of a given file, and which runs tests with them.
RUN_TESTS = """
import sys
from pathlib import Path
from sgmcmc_prune.native import library
library.BUILT = Path(sys.argv[1])
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""
#: A kernel that is told of one entry more than there is.
ONE_TOO_MANY = """
import sys
from pathlib import Path
from sgmcmc_prune.native import library
library.BUILT = Path(sys.argv[1])
import numpy as np, torch
out = torch.empty(1000)
library.load().standard_normal(np.zeros(2, np.uint64).ctypes.data, 0, 1001, out.data_ptr(), 1)
"""


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels, built by gcc with both sanitizers."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not here")
    built = tmp_path_factory.mktemp("sanitized") / "kernels.so"
    digest = hashlib.sha256(library.SOURCE.read_bytes()).hexdigest()
    command = ["gcc", *FLAGS, *SANITIZERS, f'-DSOURCE_HASH="{digest}"', str(library.SOURCE)]
    subprocess.run([*command, "-o", str(built), "-lm"], check=True)
    return built


def run(code: str, built: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has loaded the sanitizer first."""
    found = [["gcc", f"-print-file-name={name}"] for name in ("libasan.so", "libubsan.so")]
    preload = " ".join(subprocess.run(c, capture_output=True, text=True, check=True).stdout.strip() for c in found)
    environment = {**os.environ, "LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0", "CI": "true"}
    command = [sys.executable, "-c", code, str(built), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=TESTS)


@pytest.mark.slow
def test_a_step_out_of_a_tensor_is_seen(sanitized: Path) -> None:
    done = run(ONE_TOO_MANY, sanitized)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("file", ["test_native.py", "test_samplers_memory.py", "test_samplers_tiers.py"])
def test_the_kernels_stay_within_their_tensors(sanitized: Path, file: str) -> None:
    done = run(RUN_TESTS, sanitized, str(TESTS / file))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
