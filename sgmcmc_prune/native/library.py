"""Load the kernels that were built from `kernels.c` when the package was installed (`setup.py`).

There is no fallback in here: `load` raises with the reason, and the caller decides and records what runs instead.
"""

import ctypes
import functools
import hashlib
import sysconfig
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.c")
BUILT = SOURCE.with_name(f"_kernels{sysconfig.get_config_var('EXT_SUFFIX')}")
CPUINFO = Path("/proc/cpuinfo")
HOW = "`pip install -e .` builds them, with any C compiler"

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
        If they were not built, are damaged, or were built from another source or for another processor.
    """
    library = _open(BUILT)
    if _text(library, "built_from") != hashlib.sha256(SOURCE.read_bytes()).hexdigest():
        raise NativeUnavailable(f"the kernels in {BUILT} were built from another version of their source; {HOW}")
    lacking = set(_text(library, "built_for").split()) - processor_flags() if CPUINFO.exists() else set()
    if lacking:
        found = ", ".join(sorted(lacking))
        raise NativeUnavailable(
            f"the kernels in {BUILT} were built for a processor with {found}, unlike this one; {HOW}"
        )
    for name, arguments in ARGUMENTS.items():
        getattr(library, name).argtypes = arguments
    return library


def _open(path: Path) -> ctypes.CDLL:
    if not path.exists():
        raise NativeUnavailable(f"the kernels were not built: there is no {path}; {HOW}")
    if not _whole(path):
        raise NativeUnavailable(f"the kernels in {path} are damaged; {HOW}")
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeUnavailable(f"the kernels in {path} do not load: {error}; {HOW}") from error


def _whole(path: Path) -> bool:
    """Whether an ELF file is as long as its header says: reading past its end would kill the process."""
    start = path.read_bytes()[:64]
    if start[:4] != b"\x7fELF" or len(start) < 64:
        return start[:4] in _OTHER_FORMATS
    table = int.from_bytes(start[40:48], "little")  # of sections, which comes last
    return (
        table + int.from_bytes(start[58:60], "little") * int.from_bytes(start[60:62], "little") <= path.stat().st_size
    )


#: The first bytes of a library on macOS.
_OTHER_FORMATS = (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")


def _text(library: ctypes.CDLL, name: str) -> str:
    """A constant of the library. Nothing of it has run when this is read."""
    try:
        address = ctypes.addressof(ctypes.c_char.in_dll(library, name))
    except ValueError:
        return ""
    return ctypes.string_at(address).decode()


def processor_flags() -> set[str]:
    """What this processor can do, by the names of Linux."""
    lines = CPUINFO.read_text().splitlines()
    return set(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())


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
