"""Compute machines often lack everything but torch and numpy: the core must import there."""

import subprocess
import sys
from types import ModuleType

import pytest

import sgmcmc_prune
import sgmcmc_prune.priors

CORE = (
    "noise",
    "samplers",
    "preconditioners",
    "chains.schedules",
    "priors.em",
    "priors.spike_slab",
    "pruning.inclusion",
    "pruning.decision",
    "models",
    "likelihoods",
)
ABSENT = ("zarr", "xarray", "arviz_base", "arviz_stats", "matplotlib", "tyro", "tqdm", "safetensors", "scipy", "pandas")


@pytest.mark.parametrize("modules", [CORE])
def test_core_imports_with_torch_and_numpy_alone(modules: tuple[str, ...]) -> None:
    code = f"""
import sys
for name in {ABSENT!r}:
    sys.modules[name] = None
for name in {modules!r}:
    __import__("sgmcmc_prune." + name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_line_answers_without_loading_torch() -> None:
    code = "import sys\nimport sgmcmc_prune.cli\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_the_job_imports_without_the_analysis_stack() -> None:
    absent = ("zarr", "xarray", "arviz_base", "arviz_stats", "matplotlib", "tyro", "pandas")
    code = f"import sys\nfor name in {absent!r}: sys.modules[name] = None\nimport sgmcmc_prune.run.main"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", [sgmcmc_prune, sgmcmc_prune.priors])
def test_every_name_of_a_stub_is_where_it_says(package: ModuleType) -> None:
    names = dir(package)
    assert len(names) >= 9
    for name in names:
        assert getattr(package, name).__name__ == name if name != "GROUP_KINDS" else package.GROUP_KINDS
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'Cauchy'"):
        _ = package.Cauchy
