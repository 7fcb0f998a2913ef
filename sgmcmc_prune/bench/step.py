"""`bench step`: the cost of one step of a sampler, per tier, beside torch's fused optimisers on the same tensors.

Every candidate gets the same gradients, and nothing is computed but the step. Preconditioned SGHMC with a marginal
spike-and-slab prior must touch, in float32, the weight and the momentum buffer (read and written), the gradient and the
mass (read): 24 bytes a parameter; AdamW 28, SGD with momentum 20. These are the bytes *needed*, and a candidate that
touches memory more often does not look better for it. The bytes *moved* are those that its passes over memory really
read and write, where they can be counted: the compiled and the Triton tier read every gradient once more, before
anything moves, because one that is not finite must not change any weight. That pass cannot be part of the update: the
last gradient may be the bad one. Both are compared with the speed of a copy, which means little for a network that
fits in the caches.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.machine import timing
from sgmcmc_prune.preconditioners import RMSprop
from sgmcmc_prune.priors import SpikeSlab
from sgmcmc_prune.samplers import SGHMC, tiers
from sgmcmc_prune.samplers.tiers import Noise
from sgmcmc_prune.text_table import format_rows

#: Bytes a parameter that a step cannot avoid: reads and writes of each float32 state.
NEEDED = {"sghmc": 24, "adamw": 28, "sgd": 20}
#: Bytes a parameter that are read before a step, by tiers and fused optimisers whose passes over memory can be counted.
CHECKED = {"compiled": 4, "triton": 4, "fused": 0}
#: Parameter tensors of two networks: LeNet, and ResNet-18 for CIFAR (62 tensors).
LENET = [(6, 1, 5, 5), (6,), (16, 6, 5, 5), (16,), (120, 400), (120,), (84, 120), (84,), (10, 84), (10,)]


def resnet18_shapes() -> list[tuple[int, ...]]:
    """Shapes of the 62 parameter tensors of ResNet-18 with a CIFAR stem: 11,173,962 parameters."""
    shapes: list[tuple[int, ...]] = [(64, 3, 3, 3), (64,), (64,)]
    width = 64
    for out in (64, 128, 256, 512):
        for block in range(2):
            inner = width if block == 0 else out
            shapes += [(out, inner, 3, 3), (out,), (out,), (out, out, 3, 3), (out,), (out,)]
            if block == 0 and width != out:
                shapes += [(out, width, 1, 1), (out,), (out,)]
        width = out
    return [*shapes, (10, 512), (10,)]


NETWORKS: dict[str, Callable[[], list[tuple[int, ...]]]] = {"lenet": lambda: LENET, "resnet18": resnet18_shapes}


def bench_step(
    network: str = "resnet18", rounds: int = 31, device: str = "cpu", progress: bool = True
) -> dict[str, Any]:
    """Measure every candidate on the tensors of one network.

    Returns
    -------
    dict
        `machine`, `parameters`, `copy_gigabytes_per_second` and `rows`: candidate, median milliseconds, bytes a
        parameter that are needed and that are moved (None: not counted), the share of copy speed that either makes,
        and the ratio to fused AdamW with its 95 % interval.
    """
    shapes = NETWORKS[network]()
    candidates = {**samplers(shapes, device), **optimizers(shapes, device)}
    count = sum(torch.Size(s).numel() for s in shapes)
    inner = max(1, 2_000_000 // count)  # a measurement of a small network is many steps

    repeated = {name: timing.block(step, inner) for name, step in candidates.items()}
    seconds = timing.interleaved(repeated, rounds, 2, f"bench step {network}", progress)
    copy = timing.copy_bandwidth(device)
    rows = []
    for name, times in seconds.items():
        typical = sorted(times)[len(times) // 2] / inner
        needed, moved = bytes_per_parameter(name)
        share = count / typical / copy
        rows.append(
            {
                "candidate": name,
                "milliseconds": typical * 1e3,
                "bytes_needed": needed,
                "bytes_moved": moved,
                "needed_share_of_copy_speed": needed * share,
                "moved_share_of_copy_speed": None if moved is None else moved * share,
                "ratio_to_adamw": vars(timing.paired_ratio(times, seconds["adamw (fused)"])),
            }
        )
    return {
        "bench": f"step {network}",
        "machine": timing.machine(),
        "tensors": len(shapes),
        "parameters": count,
        "rounds": rounds,
        "copy_gigabytes_per_second": copy / 1e9,
        "rows": rows,
    }


def bytes_per_parameter(candidate: str) -> tuple[int, int | None]:
    """What a candidate, "rule ... (tier)", must read and write, and what it does; None if that is not known."""
    needed = NEEDED[candidate.split(" ")[0]]
    checked = CHECKED.get(candidate[candidate.index("(") + 1 : -1])
    return needed, None if checked is None else needed + checked


def tensors(shapes: list[tuple[int, ...]], device: str) -> dict[str, Tensor]:
    """Named parameters with gradients."""
    generator = torch.Generator().manual_seed(0)
    named: dict[str, Tensor] = {}
    for i, shape in enumerate(shapes):
        p = torch.nn.Parameter(torch.randn(shape, generator=generator).mul_(0.05).to(device))
        p.grad = torch.randn(shape, generator=generator).mul_(0.01).to(device)
        named[f"p{i}"] = p
    return named


def samplers(shapes: list[tuple[int, ...]], device: str) -> dict[str, Callable[[], Any]]:
    """Preconditioned SGHMC with spike-and-slab precision, in every tier that runs here."""
    found: dict[str, Callable[[], Any]] = {}
    kinds: tuple[tuple[str, Noise, float], ...] = (
        ("gaussian", "gaussian", 1.0),
        ("rademacher", "rademacher", 1.0),
        ("without noise", "gaussian", 0.0),
    )
    for label, noise, temperature in kinds:
        for tier in tiers.available(device):
            named = tensors(shapes, device)
            sampler = SGHMC(
                named.items(),
                lr=1e-3,
                num_data=50_000,
                temperature=temperature,
                prior=SpikeSlab(named),
                preconditioner=RMSprop(),
                implementation=tier,
                noise=noise,
            )
            sampler.step()
            sampler.refresh_preconditioner()
            sampler.freeze()
            found[f"sghmc {label} ({tier})"] = sampler.step
    return found


def optimizers(shapes: list[tuple[int, ...]], device: str) -> dict[str, Callable[[], Any]]:
    """What torch offers at its fastest, without noise or prior."""
    found: dict[str, Callable[[], Any]] = {}
    for name, make in (
        ("adamw (fused)", lambda p: torch.optim.AdamW(p, fused=True)),
        ("sgd (fused)", lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True)),
    ):
        found[name] = make(list(tensors(shapes, device).values())).step
    return found


def table(result: dict[str, Any]) -> str:
    """The result as aligned text."""
    header = (
        "candidate",
        "ms a step",
        "bytes needed",
        "of copy speed",
        "bytes moved",
        "of copy speed",
        "ratio to fused AdamW [95 %]",
    )
    rows = [
        [
            r["candidate"],
            f"{r['milliseconds']:.3f}",
            str(r["bytes_needed"]),
            f"{r['needed_share_of_copy_speed']:.0%}",
            *_moved(r),
            str(timing.Ratio(**r["ratio_to_adamw"])),
        ]
        for r in result["rows"]
    ]
    return format_rows(header, rows)


def _moved(row: dict[str, Any]) -> tuple[str, str]:
    if row["bytes_moved"] is None:
        return "-", "-"
    return str(row["bytes_moved"]), f"{row['moved_share_of_copy_speed']:.0%}"
