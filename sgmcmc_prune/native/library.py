"""Compile `kernels.c` with the system's C compiler, once per machine and version, and load it.

The shared library lies in the user's cache directory under the hash of its source, flags and processor. There is no
fallback in here: `load` raises with the reason, and the caller decides and records what runs instead.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = (
    "-O3",
    "-march=native",
    "-std=gnu11",
    "-fschedule-insns",  # instructions that wait for each other apart: the noise is long chains of them
    "-fsched-pressure",
    "-ffp-contract=off",  # fused multiply-adds are written out: results do not depend on how a loop was compiled
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffinite-math-only",  # gradients are looked at before a step; without NaN a clamp is one instruction
    "-fno-signed-zeros",
    "-shared",
    "-fPIC",
)
#: Threads are those of torch: its OpenMP runtime is loaded already, and is the one that the kernels find.
OPENMP = "-fopenmp"

_POINTER, _COUNT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
#: What each kernel is called with: tensors and their number, settings, all their weights, threads.
ARGUMENTS = {
    "standard_normal": (_POINTER, ctypes.c_uint64, _SIZE, _POINTER, _COUNT),
    "rademacher": (_POINTER, ctypes.c_uint64, _SIZE, _POINTER, _COUNT),
    "sghmc_step": (_POINTER, _COUNT, _POINTER, _SIZE, _COUNT),
    "sgld_step": (_POINTER, _COUNT, _POINTER, _SIZE, _COUNT),
    "mixture_sums": (_POINTER, _POINTER, _SIZE, ctypes.c_float, ctypes.c_float, _POINTER),
    "factor_statistics": (*[_POINTER] * 5, _SIZE, _SIZE, *[_POINTER] * 4, _COUNT),
    "factor_gradient": (*[_POINTER] * 5, _SIZE, _SIZE, *[_POINTER] * 6, _COUNT),
    "spike_sums": (_POINTER, _POINTER, _SIZE, ctypes.c_float, ctypes.c_float, _POINTER, _COUNT),
    "spike_gradient": (_POINTER, _POINTER, _SIZE, *[ctypes.c_float] * 5, _POINTER, _POINTER, _COUNT),
    "local_draw": (_POINTER, _POINTER, _SIZE, _SIZE, ctypes.c_float, *[_POINTER] * 3, _COUNT),
    "local_gradient": (*[_POINTER] * 4, _SIZE, _SIZE, *[_POINTER] * 3, _COUNT),
    "gate_draw": (*[_POINTER] * 3, _SIZE, _SIZE, _POINTER, _POINTER, _COUNT),
    "gate_gradient": (*[_POINTER] * 3, _SIZE, _SIZE, ctypes.c_float, _POINTER, _POINTER, _COUNT),
    "all_finite": (_POINTER, _COUNT, _SIZE, _COUNT),
}


class NativeUnavailable(RuntimeError):
    """The compiled kernels cannot run here; the message says why."""


@functools.cache
def load() -> ctypes.CDLL:
    """The compiled kernels.

    Raises
    ------
    NativeUnavailable
        Without a C compiler, or if it fails.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler or not shutil.which(compiler):
        raise NativeUnavailable("no C compiler (cc, gcc or clang) was found, and $CC names none")
    parts = [SOURCE.read_text(), compiler, OPENMP, *FLAGS, _processor()]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    path = _cache_directory() / f"kernels-{key}.so"
    if not path.exists():
        _compile(compiler, path)
    library = ctypes.CDLL(str(path))
    for name, arguments in ARGUMENTS.items():
        getattr(library, name).argtypes = arguments
    return library


def takes(x: Tensor) -> bool:
    """Whether the kernels can run here, and on this tensor: float32, contiguous, on the CPU."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not x.is_contiguous():
        return False
    return _available()


@functools.cache
def _available() -> bool:
    """Whether the kernels can be loaded; a failure is not tried again."""
    try:
        load()
    except NativeUnavailable:
        return False
    return True


def _compile(compiler: str, path: Path) -> None:
    """Compile under a temporary name and rename, so that processes that start together do not disturb each other."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / path.name
        command = [compiler, *FLAGS, str(SOURCE), "-o", str(built), "-lm"]
        done = subprocess.run([*command, OPENMP], capture_output=True, text=True, check=False)
        if done.returncode != 0:  # a compiler without OpenMP gives the same results on one thread
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no message"])[0]
            raise NativeUnavailable(f"{compiler} could not compile kernels.c: {reason}")
        os.replace(built, path)


def _cache_directory() -> Path:
    """A directory that can be written: the user's cache, else a private temporary one."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sgmcmc_prune"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError:
        root = Path(tempfile.mkdtemp(prefix="sgmcmc_prune-"))
    return root if os.access(root, os.W_OK) else Path(tempfile.mkdtemp(prefix="sgmcmc_prune-"))


def _processor() -> str:
    """What -march=native depends on; home directories are shared between unlike machines."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()} {flags}"
