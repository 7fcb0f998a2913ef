"""A comparison as jobs of a cluster: every job makes the same call, and they share its cells (`cells`)."""

from pathlib import Path
from typing import Any

from sgmcmc_prune.compare.comparison import compare
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.settings import require


class Share:
    """One job: `compare`, which takes the cells that no other job has.

    Parameters
    ----------
    comparison : Comparison
    out : Path
    jobs : int
        Processes at once in the job.
    """

    def __init__(self, comparison: Comparison, out: Path, jobs: int) -> None:
        self.comparison, self.out, self.jobs = comparison, out, jobs

    def __call__(self) -> int:
        """Work until no cell is missing; the number of rows."""
        return len(compare(self.comparison, self.out, self.jobs, progress=False))

    def checkpoint(self) -> Any:
        """Queue again, when the cluster takes the machine away or time is up: finished cells are kept."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(
    comparison: Comparison, out: Path, count: int, cluster: str = "slurm", jobs: int = 1, **options: Any
) -> list[Any]:
    """Send jobs that share a comparison.

    Parameters
    ----------
    comparison : Comparison
    out : Path
        On a file system that all machines see; what the jobs print goes to its folder `jobs`.
    count : int
        Jobs.
    cluster : {"slurm", "local"}
        "local": processes of this machine.
    jobs : int
        Processes at once in each.
    **options
        Of submitit's executor, such as `timeout_min=600`, `gpus_per_node=1`, `slurm_partition="gpu"`.

    Returns
    -------
    list of submitit.Job

    Raises
    ------
    ValueError
        If no job is asked for, submitit is not installed, there is no such cluster here, or it has no such option.
    """
    require(count > 0, f"submit is {count}; send one job or more")
    try:
        import submitit
    except ImportError:
        raise ValueError('jobs are sent by submitit, which is not installed: pip install ".[cluster]"') from None
    folder = out.resolve() / "jobs"
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(name="compare", **options)
    except (RuntimeError, NameError, TypeError) as error:
        raise ValueError(f"submitit says of cluster {cluster} and options {options}: {error}") from None
    share = Share(comparison, out.resolve(), jobs)
    return [executor.submit(share) for _ in range(count)]
