"""Kernels are built with the package, and loaded only where they are whole, of this source, for this processor."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sgmcmc_prune import native
from sgmcmc_prune.native import library
from sgmcmc_prune.samplers import SGHMC, tiers

ROOT = Path(__file__).parents[1]


def build(folder: Path, compiler: str) -> list[Path]:
    """What `setup.py` builds from a copy of the sources with a compiler."""
    (folder / "sgmcmc_prune" / "native").mkdir(parents=True)
    for file in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, folder)
    shutil.copy(library.SOURCE, folder / "sgmcmc_prune" / "native")
    shutil.copy(ROOT / "sgmcmc_prune" / "__init__.py", folder / "sgmcmc_prune")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "built"]
    # LDSHARED names the linker, which is that of the compiler unless the environment says otherwise.
    environment = {**os.environ, "CC": compiler, "LDSHARED": f"{compiler} -shared"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list((folder / "built").rglob("_kernels*.so"))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernels: None) -> Path:
    """A copy of the built kernels, which `load` looks at from now on."""
    copy = tmp_path / library.BUILT.name
    shutil.copy(library.BUILT, copy)
    monkeypatch.setattr(library, "BUILT", copy)
    return copy


def refusal() -> str:
    with pytest.raises(native.NativeUnavailable) as error:
        library.load.__wrapped__()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_source_checkout_says_how_to_build(elsewhere: Path) -> None:
    elsewhere.unlink()
    assert "were not built" in refusal()
    assert "`pip install -e .` builds them" in refusal()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
def test_a_truncated_library_is_refused(elsewhere: Path, share: float) -> None:
    whole = elsewhere.read_bytes()
    elsewhere.write_bytes(whole[: int(share * len(whole))])
    assert "are damaged" in refusal()


def test_another_file_is_refused(elsewhere: Path) -> None:
    elsewhere.write_text("#!/bin/sh\n" * 100)
    assert "are damaged" in refusal()


def test_a_library_of_an_older_source_is_refused(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = tmp_path / "kernels.c"
    newer.write_text(library.SOURCE.read_text() + "// changed\n")
    monkeypatch.setattr(library, "SOURCE", newer)
    assert "from another version of their source" in refusal()


def test_a_library_for_another_processor_is_refused(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_for = library._text(library.load(), "built_for").split()
    assert set(built_for) <= library.processor_flags()
    if not built_for:
        pytest.skip("the kernels need nothing that a processor may lack")
    lesser = tmp_path / "cpuinfo"
    lesser.write_text(f"flags : {' '.join(built_for[:-1])}\n")
    monkeypatch.setattr(library, "CPUINFO", lesser)
    assert f"built for a processor with {built_for[-1]}, unlike this one" in refusal()


def test_without_kernels_the_reference_runs_and_the_reason_is_told(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere.unlink()
    monkeypatch.setattr(native, "load", library.load.__wrapped__)
    w = torch.nn.Parameter(torch.zeros(2))
    assert SGHMC([w], lr=0.1, num_data=2).param_groups[0]["implementation"] == "reference"
    assert "were not built" in str(tiers.why_not_compiled([w]))
    with pytest.raises(ValueError, match="'compiled' cannot run: the kernels were not built"):
        SGHMC([w], lr=0.1, num_data=2, implementation="compiled")


def test_without_a_compiler_the_package_is_built_all_the_same(tmp_path: Path) -> None:
    assert build(tmp_path, "no-such-compiler") == []


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_compilers_make_kernels_that_agree(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernels: None
) -> None:
    """Normals to 4 ulp, as with the reference; signs to the bit."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not here")
    usual = native.standard_normal(3, 1, 5, 7, 10_000), native.rademacher(3, 1, 5, 7, 10_000)
    (built,) = build(tmp_path, compiler)
    monkeypatch.setattr(library, "BUILT", built)
    monkeypatch.setattr("sgmcmc_prune.native.step.load", library.load.__wrapped__)
    normals, signs = native.standard_normal(3, 1, 5, 7, 10_000), native.rademacher(3, 1, 5, 7, 10_000)
    spacing = torch.nextafter(usual[0].abs(), torch.tensor(torch.inf)) - usual[0].abs()
    assert float(((normals - usual[0]).abs() / spacing).max()) <= 4
    assert torch.equal(signs, usual[1])
