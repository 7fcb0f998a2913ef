"""Keep freed memory in the process.

On Linux the C library gives a freed block of some megabytes back to the system, which clears it when it is asked for
again: at every step, for every activation. A step of LeNet by plain SGD took 9.3 ms with that and 6.8 ms without
(`benchmarks/allocator.py`).
"""

import ctypes
import os
import platform

#: glibc's names, and the largest block that it serves from its heap; beyond so many free bytes it trims.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_LARGEST_BLOCK, _FREE_BYTES = 32 << 20, 1 << 30


def keep_freed_memory() -> bool:
    """Ask glibc to keep up to 1 GiB of freed memory; called once, by commands and their workers.

    Returns
    -------
    bool
        Whether it does: not with another C library, nor where the user has set `MALLOC_...` variables.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all((mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK), mallopt(_TRIM_THRESHOLD, _FREE_BYTES)))
