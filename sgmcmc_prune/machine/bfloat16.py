"""Whether bfloat16 makes a network faster on a device: elsewhere it is emulated, and many times slower than float32."""

from pathlib import Path

import torch

#: What Linux calls instructions of a processor for bfloat16 (Intel and AMD; Arm).
FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
#: The first compute capability of NVIDIA with bfloat16.
CAPABILITY = (8, 0)


def why_slow(device: str) -> str:
    """Why bfloat16 is no gain on a device, in words; "" where it is one."""
    if torch.device(device).type != "cuda":
        return why_slow_processor(_cpuinfo())
    capability = torch.cuda.get_device_capability(device)
    if capability >= CAPABILITY:
        return ""
    return f"{torch.cuda.get_device_name(device)} has compute capability {'.'.join(map(str, capability))}, under 8.0"


def why_slow_processor(cpuinfo: str) -> str:
    """The same of a processor, from the text of /proc/cpuinfo; one that cannot be read counts as without."""
    lines = [line.partition(":") for line in cpuinfo.splitlines()]
    found = {flag for name, _, flags in lines if name.strip() in ("flags", "Features") for flag in flags.split()}
    return "" if found & FLAGS else "this processor has neither avx512_bf16 nor AMX (nor Arm's bf16)"


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""
