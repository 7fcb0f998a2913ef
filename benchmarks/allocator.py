"""A training step of LeNet with and without `keep_freed_memory`, each in processes of its own, in turns.

    python benchmarks/allocator.py

Prints milliseconds a step (the best of ten blocks of twenty steps) of plain SGD and of SS-GHS, two processes each.
"""

import subprocess
import sys
import time


def measure(method: str, keep: bool) -> float:
    """Milliseconds a step in this process."""
    from sgmcmc_prune.machine.allocator import keep_freed_memory

    if keep:
        keep_freed_memory()
    from sgmcmc_prune.bench import train

    arguments = ("lenet", (1, 28, 28), 128, "cpu")
    step = train.sgd(*arguments) if method == "sgd" else train.family(method, *arguments)
    best = float("inf")
    for _ in range(12):
        started = time.perf_counter()
        for _ in range(20):
            step()
        best = min(best, (time.perf_counter() - started) / 20)
    return 1e3 * best


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(measure(sys.argv[1], sys.argv[2] == "keep"))
        raise SystemExit
    for method in ("sgd", "ss_ghs"):
        found: dict[str, list[float]] = {"keep": [], "default": []}
        for _ in range(2):
            for what, times in found.items():
                done = subprocess.run(
                    [sys.executable, __file__, method, what], capture_output=True, text=True, check=True
                )
                times.append(float(done.stdout))
        print(method, {what: [round(t, 1) for t in times] for what, times in found.items()})
