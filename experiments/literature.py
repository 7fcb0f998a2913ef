"""What the experiments after published papers share: a paper's setting, a small budget, and its figures beside ours.

Each script states the paper's setting as changes of the preset `cifar10`, the variants to compare, and the figures that
were published. `--budget paper` runs that setting; `--budget small` the same with 5,000 training images and 16 epochs,
which shows on one CPU core that everything works, and nothing about the paper's claim.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import shared
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace, to_json

#: Of 50,000 training images 45,000 are put aside; burn-in, two cycles and one target.
SMALL: dict[str, Any] = {
    "data.validation": 45_000,
    "schedule.burn_in": 6.0,
    "schedule.cycles": 2,
    "schedule.explore": 2.0,
    "schedule.sample": 1.0,
    "schedule.relax": 0.25,
    "schedule.draws": 2,
    "prune.targets": (0.9,),
    "prune.explore": 3.0,
    "prune.sample": 1.0,
    "prune.relax": 0.25,
    "prune.draws": 2,
}
#: Criteria that a prior without indicators allows.
MAGNITUDE: dict[str, Any] = {"prune.in_chain": ("root_mean_square",), "prune.post_hoc": ("magnitude",)}
#: Nothing is pruned: a paper about sampling.
DENSE: dict[str, Any] = {"prune.in_chain": (), "prune.post_hoc": ()}
INCLUSION: dict[str, Any] = {
    "prune.in_chain": ("inclusion_probability",),
    "prune.post_hoc": ("inclusion_probability", "magnitude"),
}
RESPONSIBILITY: dict[str, Any] = {
    "prune.in_chain": ("em_responsibility",),
    "prune.post_hoc": ("em_responsibility", "magnitude"),
}


@dataclass(frozen=True)
class Experiment:
    """A published experiment.

    Parameters
    ----------
    name : str
        Of its run directories and result files.
    paper : dict
        Its setting, as changes of the preset `cifar10`.
    variants : dict of dict
        What each variant changes in it.
    published : sequence of (method, sparsity, accuracy)
        The paper's figures, as it prints them; empty if none could be read.
    small : dict
        What the small budget changes beyond `SMALL`, such as a smaller network.
    """

    name: str
    paper: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    published: Sequence[tuple[str, str, str]] = ()
    small: dict[str, Any] = field(default_factory=dict)

    def config(self, variant: str, budget: str, **changes: Any) -> RunConfig:
        """The configuration of one cell."""
        small = SMALL | self.small if budget == "small" else {}
        common = {"preset": self.name, "chains": 1, "data.validation": 0}
        made: RunConfig = replace(
            PRESETS["cifar10"](), **(common | self.paper | self.variants[variant] | small | changes)
        )
        return made


def main(experiment: Experiment, script: str, description: str, argv: Sequence[str] | None = None) -> None:
    """Run the cells that are missing, then write our table and the paper's."""
    parser = shared.sweep_parser(description, experiment.name, list(experiment.variants), script)
    parser.set_defaults(seeds=[0], jobs=1)
    parser.add_argument("--budget", choices=("small", "paper"), default="small")
    parser.add_argument("--data-dir", type=Path, help="as of `sgmcmc-prune run`")
    parser.add_argument("--device", default="cpu")
    a = parser.parse_args(argv)
    a.runs, a.out = a.runs / a.budget, a.out.with_name(f"{a.out.name}_{a.budget}")
    changes = {"evaluate": a.evaluate, "data.data_dir": a.data_dir, "device": a.device}
    configs = {(v, s): experiment.config(v, a.budget, seed=s, **changes) for v in a.variants for s in a.seeds}
    cells = shared.sweep(a, shared.run_or_resume, lambda *cell: {"config": to_json(configs[cell])})
    shared.write(a, cells, f"{experiment.name}, budget {a.budget}", f"{description}\n{report(experiment, cells)}")


def report(experiment: Experiment, cells: shared.Cells) -> str:
    """Our table, what the data were, and the published figures."""
    header = ("variant", "seeds", "when", "criterion", "decision", "sparsity", "members")
    scores = ("accuracy", "nll", "ece", "single_accuracy")
    rows = []
    for variant, runs in cells.items():
        dense = [run["dense"] for run in runs]
        rows.append(
            [variant, str(len(runs)), "dense", "", "", "", str(dense[0]["members"]), *shared.scores(dense, scores)]
        )
        for when in ("in_chain", "post_hoc"):
            for key in shared.keys(runs[0], when):
                found = [shared.find(run, when, key) for run in runs]
                sparsity = shared.interval([f["sparsity"] for f in found], 3)
                labels = [variant, str(len(runs)), when.replace("_", " "), *key, sparsity, str(found[0]["members"])]
                rows.append([*labels, *shared.scores(found, scores)])
    text = ["## Ours\n", shared.markdown((*header, "accuracy", "NLL", "ECE", "single accuracy"), rows)]
    if any(not run["data"]["official"] for runs in cells.values() for run in runs):
        text.append("\nThe images are not the official files: compare these figures with each other, not with a paper.")
    text.append("\n## Published\n")
    published = [list(row) for row in experiment.published]
    text.append(
        shared.markdown(("method", "sparsity", "accuracy %"), published) if published else "No figure was read."
    )
    return "\n".join(text)
