"""Freed memory stays in the process, unless the user or another C library decides."""

import ctypes
import os
import subprocess
import sys

import pytest

from sgmcmc_prune.machine.allocator import keep_freed_memory

#: Allocate and free 64 MiB in blocks of 8: what the C library still holds afterwards, in MiB.
HELD = """
import ctypes, sys
from sgmcmc_prune.machine.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
for block in [libc.malloc(8 << 20) for _ in range(8)]:
    libc.free(block)
class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "abcdefghij"]  # i: free bytes
libc.mallinfo2.restype = Counts
print(libc.mallinfo2().i >> 20)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library is not glibc 2.33 or later")
def test_freed_blocks_stay() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    held = {}
    for what in ("keep", "default"):
        command = [sys.executable, "-c", HELD, what]
        held[what] = int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert held["keep"] >= 60
    assert held["default"] < 30


def test_the_users_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert keep_freed_memory() is False
