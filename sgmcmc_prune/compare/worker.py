"""One cell of a comparison: `python -m sgmcmc_prune.compare.worker OUT SEED THREADS METHOD`.

Started by `compare`, never by hand. Exit codes: 0 finished, 3 interrupted, 1 failed (the reason is the last line on
standard error).
"""

import sys
import threading
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import torch

from sgmcmc_prune.chains.processes import INTERRUPTED, LineBar
from sgmcmc_prune.compare.cell import compute
from sgmcmc_prune.compare.comparison import load
from sgmcmc_prune.errors import Interrupted, RunError
from sgmcmc_prune.machine.allocator import keep_freed_memory
from sgmcmc_prune.run.worker import end_with_parent


def main(arguments: list[str]) -> int:
    """Compute the cell; return the exit code."""
    out, seed, threads, method = Path(arguments[0]), int(arguments[1]), int(arguments[2]), arguments[3]
    keep_freed_memory()
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # the last line on standard error must be a reason
    sys.path.insert(0, str(Path.cwd()))
    threading.Thread(target=end_with_parent, daemon=True).start()
    bar = LineBar(sys.stdout)
    bar.set_description(f"{method}, seed {seed}")
    bar.close()
    try:
        with redirect_stdout(sys.stderr):  # a network may print
            compute(load(out), out, method, seed)
    except Interrupted:
        return INTERRUPTED
    except (RunError, ValueError, TypeError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    bar.update(1)
    bar.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
