"""What the experiments after published papers share: a paper's setting, two budgets, and its figures beside ours.

Each script states the paper's setting as changes of a preset, the variants to compare, and the figures that were
published. `--budget paper` runs that setting. `--budget desk` is the same with all training images and every length
times one factor, so that a dense chain takes 24 epochs (`--epochs`), in two chains with a process each, and in bfloat16
where the device has it.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from experiments import shared, verdict
from experiments.papers import Figure, Ours, Script, ahead, number
from sgmcmc_prune.choices import OURS
from sgmcmc_prune.machine import bfloat16
from sgmcmc_prune.run.checks import check_device, check_precision
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.run.tables import decision
from sgmcmc_prune.settings import replace, require, to_json

#: Epochs of a dense chain at the desk, and the members of its ensemble at most.
DESK_EPOCHS, DESK_DRAWS = 24.0, 30
#: Lengths that the desk's factor shortens.
LENGTHS = {"schedule": ("burn_in", "explore", "sample", "relax"), "prune": ("explore", "sample", "relax")}
#: Images that are held out where a choice is made on them.
HELD_OUT = 5000
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
#: The log-odds of a group as the stated prior gives them, not divided by the temperature.
LOG_ODDS: dict[str, Any] = {
    "prune.in_chain": ("expected_log_odds",),
    "prune.post_hoc": ("expected_log_odds", "magnitude"),
}


@dataclass(frozen=True)
class Experiment:
    """A published experiment.

    Parameters
    ----------
    name : str
        Of its run directories and result files.
    paper : dict
        Its setting, as changes of the preset.
    variants : dict of dict
        What each variant changes in it.
    published : sequence of (method, sparsity, accuracy)
        The paper's figures, as it prints them; empty if none could be read.
    preset : str
    claim : sequence of str
        Variants in the order that the paper found, the best first; empty without such a claim.
    """

    name: str
    paper: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    published: Sequence[tuple[str, str, str]] = ()
    preset: str = "cifar10"
    claim: Sequence[str] = ()

    def config(self, variant: str, budget: str, epochs: float = DESK_EPOCHS, **changes: Any) -> RunConfig:
        """The configuration of one cell; `epochs` is the desk's, of a dense chain."""
        common = {"preset": self.name, "chains": 1, "data.validation": 0}
        made: RunConfig = replace(PRESETS[self.preset](), **(common | self.paper | self.variants[variant]))
        if budget == "desk":
            made = at_the_desk(made, epochs)
        if changes.get("evaluate") == "validation" and not made.data.validation:
            changes = {"data.validation": HELD_OUT} | changes
        final: RunConfig = replace(made, **changes)
        return final


def dense_epochs(config: RunConfig) -> float:
    """Length of a dense chain."""
    s = config.schedule
    return s.burn_in + s.cycles * (s.explore + s.sample)


def at_the_desk(config: RunConfig, epochs: float) -> RunConfig:
    """The same run in a dense chain of so many epochs, every length times one factor; two chains, a process each."""
    require(epochs > 0, f"epochs is {epochs:g}; a dense chain at the desk needs more than 0, such as {DESK_EPOCHS:g}")
    factor = epochs / dense_epochs(config)
    lengths = {
        f"{part}.{name}": factor * getattr(getattr(config, part), name)
        for part, names in LENGTHS.items()
        for name in names
    }
    draws = min(config.schedule.draws, max(1, DESK_DRAWS // config.schedule.cycles))
    made: RunConfig = replace(config, **lengths, **{"schedule.draws": draws, "chains": 2, "execution": "processes"})
    return made


def described(experiment: Experiment, variant: str, **more: Any) -> dict[str, Any]:
    """The settings of a variant at the paper's length, as "part.field", and what follows from them."""
    config = experiment.config(variant, "paper")
    parts = {part: fields for part, fields in to_json(config).items() if isinstance(fields, dict)}
    flat = {f"{part}.{name}": value for part, fields in parts.items() for name, value in fields.items()}
    return flat | {"epochs": dense_epochs(config), "draws": config.schedule.cycles * config.schedule.draws} | more


def accuracies(cells: Mapping[str, Any], variant: str, target: float | None = None) -> dict[int, float]:
    """Accuracy in percent by seed, of the dense predictive or in the chain at a target; none without the official data.

    A number of other images must not stand beside a paper's.
    """
    runs = [run for run in cells.get(variant, ()) if run["data"]["official"]]
    if target is None:
        return {run["seed"]: 100 * run["dense"]["accuracy"] for run in runs}
    rows = [(run["seed"], row) for run in runs for row in run["pruned"] if row["when"] == "in_chain"]
    return {seed: 100 * row["accuracy"] for seed, row in rows if row["target"] == target}


def accuracy(variant: str, target: float | None = None) -> Callable[[Any], Ours | None]:
    """A reader: the accuracy of a variant, as `accuracies` has it."""
    return lambda cells: number(accuracies(cells, variant, target), 2)


def better(first: str, second: str, target: float | None = None) -> Callable[[Any], Ours | None]:
    """A reader: whether the first variant's accuracy is above the second's, paired by seed."""
    return lambda cells: ahead(accuracies(cells, first, target), accuracies(cells, second, target), 2)


def script(module: Any, data: str, at_the_desk: bool = True) -> Script:
    """A script of this form, as a paper lists it."""
    run = partial(main, module.EXPERIMENT, module.__file__, module.__doc__ or "")
    out, name = f"--out {{out}}/{module.EXPERIMENT.name}", module.__name__.removeprefix("experiments.")
    desk = f"--budget desk {out}" if at_the_desk else None
    return Script(name, run, desk, f"--budget paper {out}", data, device=True)


def figure(module: Any) -> Figure:
    """Accuracy against sparsity beside what was published, as a paper lists it."""
    name = module.EXPERIMENT.name

    def draw(cells: Any) -> Any:
        from analysis import against_the_literature as analysis

        ours, official = analysis.means(cells)
        published = analysis.published(module.__name__.removeprefix("experiments.").replace(".", "/"))
        return analysis.draw(name, ours, published, official)

    return Figure(name, "Accuracy against sparsity, ours beside what was published.", f"{name}_{{budget}}", draw)


def temperatures(module: Any) -> Figure:
    """Accuracy and NLL against temperature, as a paper lists it: variants are named "CURVE T=VALUE"."""
    name = module.EXPERIMENT.name

    def draw(cells: Any) -> Any:
        from analysis import temperature_curve

        curves: dict[str, dict[float, list[Any]]] = {}
        for variant, runs in cells.items():
            curve, _, temperature = variant.rpartition("T=")
            curves.setdefault(curve.strip() or "as in the paper", {})[float(temperature)] = [r["dense"] for r in runs]
        return temperature_curve.draw(curves)

    return Figure(name, "Accuracy and NLL of the predictive against its temperature.", f"{name}_{{budget}}", draw)


def precision(asked: str, budget: str, device: str) -> str:
    """What networks are passed in: at the desk bfloat16 where the device has it ("auto"), and a line where it has not.

    Raises
    ------
    ValueError
        If bfloat16 was asked for where it is emulated, or there is no such device.
    """
    check_device(device)
    if asked != "auto":
        check_precision(asked, device)
        return asked
    if budget == "paper":
        return "float32"
    reason = bfloat16.why_slow(device)
    if reason:
        print(f"float32: {reason}", file=sys.stderr)
    return "float32" if reason else "bfloat16"


def parse(experiment: Experiment, script: str, description: str, argv: Sequence[str] | None) -> Any:
    """The options of such a script."""
    parser = shared.sweep_parser(description, experiment.name, list(experiment.variants), script)
    parser.set_defaults(seeds=[0], jobs=1)
    parser.add_argument("--budget", choices=("desk", "paper"), default="desk")
    parser.add_argument("--epochs", type=float, help=f"of a dense chain at the desk, by default {DESK_EPOCHS:g}")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--control", choices=list(OURS["control"]), help="trained beside the chains, at their budget")
    shared.add_places(parser)
    return parser.parse_args(argv)


def main(experiment: Experiment, script: str, description: str, argv: Sequence[str] | None = None) -> None:
    """Run the cells that are missing, then write our table and the paper's."""
    a = parse(experiment, script, description, argv)
    length = "" if a.epochs is None else f"{a.epochs:g}"
    budget = "-".join(filter(None, (a.budget, length, a.control)))
    a.runs, a.out = a.runs / budget, a.out.with_name(f"{a.out.name}_{budget}")
    with shared.in_words():
        require(a.budget == "desk" or a.epochs is None, "epochs are the desk's; with --budget paper leave them out")
        changes = {"evaluate": a.evaluate, "data.data_dir": a.data_dir, "device": a.device, "control": a.control}
        epochs = DESK_EPOCHS if a.epochs is None else a.epochs
        configs = {
            (v, s): experiment.config(v, a.budget, epochs, seed=s, **changes) for v in a.variants for s in a.seeds
        }
        chosen = precision(a.precision, a.budget, a.device)
    cells = shared.sweep(
        a, shared.run_or_resume, lambda *cell: {"config": to_json(replace(configs[cell], precision=chosen))}
    )
    shared.write_runs(a, cells, f"{experiment.name}, budget {a.budget}", f"{description}\n{report(experiment, cells)}")


def report(experiment: Experiment, cells: shared.Cells) -> str:
    """Our table, what the data were, and the published figures."""
    text = ["## Ours\n", table(cells)]
    if any(not run["data"]["official"] for runs in cells.values() for run in runs):
        text.append("\nThe images are not the official files: compare these figures with each other, not with a paper.")
    if judged := verdicts(experiment, cells):
        text += ["\n## Verdict\n", *judged]
    text.append("\n## Published\n")
    published = [list(row) for row in experiment.published]
    text.append(
        shared.markdown(("method", "sparsity", "accuracy %"), published) if published else "No figure was read."
    )
    return "\n".join(text)


def table(cells: shared.Cells) -> str:
    """Every network of the runs in a row, means and intervals over seeds."""
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
        for row, first in enumerate(runs[0].get("control", ())):
            found = [run["control"][row] for run in runs]
            sparsity = shared.interval([f["sparsity"] for f in found], 3)
            labels = [variant, str(len(runs)), "control", first["criterion"], decision(first), sparsity]
            rows.append([*labels, str(first["members"]), *shared.scores(found, scores)])
    return shared.markdown((*header, "accuracy", "NLL", "ECE", "single accuracy"), rows)


def verdicts(experiment: Experiment, cells: shared.Cells) -> list[str]:
    """Whether the order that the paper found holds here, dense and in the chain at every target; none without a claim.

    In accuracy, paired by seed; of a run that prunes nothing, in that of the dense predictive.
    """
    if not experiment.claim or not set(experiment.claim) <= cells.keys():
        return []
    first = cells[experiment.claim[0]][0]
    keys = shared.keys(first, "in_chain")

    def line(where: str, accuracy: Callable[[dict[str, Any]], float]) -> str:
        scores = {v: {run["seed"]: accuracy(run) for run in cells[v]} for v in experiment.claim}
        return verdict.sentences(where, verdict.differences(experiment.claim, scores))

    if not keys:
        return [line("dense", lambda run: float(run["dense"]["accuracy"]))]
    return [
        line(f"in the chain, {key[1]}", lambda run, key=key: float(shared.find(run, "in_chain", key)["accuracy"]))
        for key in keys
    ]


#: A chain of eleven epochs for ResNet-20 on CIFAR-10, judged on held-out images: choices are made with it.
ON_HELD_OUT: dict[str, Any] = {
    "chains": 1,
    "data.validation": HELD_OUT,
    "evaluate": "validation",
    "em.kind": "fixed",
    "prior.family": "gaussian",
    "prior.slab_variance": 0.04,
    "prior.dense_variance": 0.04,
    "schedule.burn_in": 9.0,
    "schedule.cycles": 1,
    "schedule.explore": 0.0,
    "schedule.sample": 2.0,
    "schedule.relax": 0.5,
    "schedule.draws": 6,
}


def sweep_on_held_out(
    name: str,
    title: str,
    about: str,
    script: str,
    variants: Mapping[str, Mapping[str, Any]],
    table: Callable[[shared.Cells], str],
    argv: list[str] | None = None,
) -> None:
    """Run the cells of `ON_HELD_OUT` with the changes of each variant that are missing, then write the table."""
    parser = shared.sweep_parser(about, name, list(variants), script)
    parser.set_defaults(seeds=[0], evaluate="validation")
    shared.add_places(parser)
    a = parser.parse_args(argv)
    with shared.in_words():
        machine = {"data.data_dir": a.data_dir, "device": a.device, "precision": precision("auto", "desk", a.device)}
        common = ON_HELD_OUT | machine
        configs = {
            (v, s): replace(PRESETS["cifar10"](), **common | dict(variants[v]) | {"seed": s})
            for v in a.variants
            for s in a.seeds
        }
    cells = shared.sweep(a, shared.run_or_resume, lambda *cell: {"config": to_json(configs[cell])})
    shared.write_runs(a, cells, title, f"{about}\n{table(cells)}")
