"""LeNet on the full Fashion-MNIST: how prunable is the network under each prior, and does inclusion beat magnitude?

    python experiments/fashion_mnist_lenet.py --seeds 0 1 2 --jobs 2

Every cell (variant, seed) is one process on one thread with its own run directory; an interrupted sweep goes on where
it was, and no finished cell is computed again. The tables go to benchmarks/fashion_mnist_lenet.{json,md}.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sgmcmc_prune.config import RunConfig, replace
from sgmcmc_prune.presets import PRESETS
from sgmcmc_prune.tables import format_rows

ROOT = Path(__file__).resolve().parents[1]
#: All variants: the final runs train on all 60,000 images; settings were chosen on 5,000 of them, held out.
COMMON = {"data.validation": 0, "prune.post_hoc": ("inclusion_probability", "magnitude"), "chains": 1}
MAGNITUDE = {"prune.in_chain": ("magnitude",), "prune.post_hoc": ("magnitude",)}

#: What each variant changes in the preset "fashion-mnist".
VARIANTS: dict[str, dict[str, Any]] = {
    "slab variance per layer, 2 chains": {"chains": 2},
    "one spike and slab for all layers": {"em.shared_variances": True},
    "spike and slab variances per layer": {"em.learn_variances": "both"},
    "gibbs": {"prior.mode": "gibbs"},
    "gaussian prior": {**MAGNITUDE, "prior.family": "gaussian"},
    "sgd": MAGNITUDE,
    "adamw": MAGNITUDE,
}


def config_of(variant: str, seed: int, evaluate: str) -> RunConfig:
    """The configuration of one cell."""
    changes = {**COMMON, **VARIANTS[variant], "seed": seed, "evaluate": evaluate}
    if evaluate == "validation":
        changes["data.validation"] = 5000
    config: RunConfig = replace(PRESETS["fashion-mnist"](), **changes)
    return config


def run_cell(variant: str, seed: int, out: Path, evaluate: str) -> None:
    """Compute one cell in this process, resuming it if it was begun."""
    from sgmcmc_prune import build, checkpoint
    from sgmcmc_prune.baselines.dense import train_and_prune
    from sgmcmc_prune.run import resume, run

    config = config_of(variant, seed, evaluate)
    if variant in ("sgd", "adamw"):
        metrics = train_and_prune(config, build.load_data(config), variant, progress=False)  # type: ignore[arg-type]
        out.mkdir(parents=True, exist_ok=True)
        checkpoint.write_json(out / "metrics.json", metrics)
    elif (out / "config.json").exists():
        resume(out, progress=False)
    else:
        run(config, out, progress=False)


def interval(values: list[float], digits: int = 4) -> str:
    """Mean and half-width of the 95 % Student-t interval over seeds."""
    mean = np.mean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def tables(cells: dict[str, list[dict[str, Any]]]) -> str:
    """Every table of the benchmark, as Markdown with aligned columns."""
    dense = [
        [name, str(len(runs)), *[interval([r["dense"][k] for r in runs]) for k in ("accuracy", "nll", "ece", "single_accuracy")],
         str(runs[0]["dense"]["members"])]
        for name, runs in cells.items()
    ]  # fmt: skip
    text = ["## Dense\n", _markdown(("variant", "seeds", "accuracy", "NLL", "ECE", "single network", "members"), dense)]
    for when, title in (("in_chain", "Pruned in the chain"), ("post_hoc", "Pruned post hoc")):
        rows = []
        for name, runs in cells.items():
            for key in _keys(runs[0], when):
                found = [_find(r, when, key) for r in runs]
                scores = [interval([f[k] for f in found]) for k in ("accuracy", "nll", "ece")]
                below = interval([f["accuracy"] - r["dense"]["accuracy"] for f, r in zip(found, runs, strict=True)])
                rows.append([name, key[0], key[1], interval([f["sparsity"] for f in found], 3), *scores, below])
        header = ("variant", "criterion", "decision", "sparsity", "accuracy", "NLL", "ECE", "accuracy minus dense")
        text += [f"\n## {title}\n", _markdown(header, rows)]
    text += ["\n## Inclusion probability minus magnitude, paired by seed\n", _markdown(*_paired(cells))]
    return "\n".join(text) + "\n"


def _paired(cells: dict[str, list[dict[str, Any]]]) -> tuple[tuple[str, ...], list[list[str]]]:
    rows = []
    for when in ("in_chain", "post_hoc"):
        for name, runs in cells.items():
            for key in _keys(runs[0], when):
                if key[0] == "inclusion_probability" and ("magnitude", key[1]) in _keys(runs[0], when):
                    pairs = [(_find(r, when, key), _find(r, when, ("magnitude", key[1]))) for r in runs]
                    differences = [interval([a[k] - b[k] for a, b in pairs]) for k in ("accuracy", "nll")]
                    rows.append([name, when.replace("_", " "), key[1], *differences])
    return ("variant", "when", "sparsity", "accuracy difference", "NLL difference"), rows


def _keys(run: dict[str, Any], when: str) -> list[tuple[str, str]]:
    return [(r["criterion"], _decision(r)) for r in run["pruned"] if r["when"] == when]


def _decision(row: dict[str, Any]) -> str:
    return f"{row['target']:.0%}" if row["decision"] == "target" else str(row["decision"])


def _find(run: dict[str, Any], when: str, key: tuple[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = next(
        r for r in run["pruned"] if r["when"] == when and (r["criterion"], _decision(r)) == key
    )
    return found


def _markdown(header: tuple[str, ...], rows: list[list[str]]) -> str:
    return "```\n" + format_rows(header, rows) + "\n```"


def main(argv: list[str] | None = None) -> None:
    """Run the cells that are missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=2, help="processes at once, one thread each")
    parser.add_argument("--evaluate", choices=("test", "validation"), default="test")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "fashion-mnist-lenet")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "fashion_mnist_lenet")
    parser.add_argument("--tables-only", action="store_true", help="only write the tables of the finished cells")
    parser.add_argument("--cell", nargs=2, metavar=("VARIANT", "SEED"), help=argparse.SUPPRESS)
    a = parser.parse_args(argv)

    def directory(variant: str, seed: int) -> Path:
        folder: Path = a.runs / f"{variant.replace(',', '').replace(' ', '-')}-seed{seed}"
        return folder

    if a.cell:
        run_cell(a.cell[0], int(a.cell[1]), directory(a.cell[0], int(a.cell[1])), a.evaluate)
        return
    todo = [(v, s) for v in a.variants for s in a.seeds if not (directory(v, s) / "metrics.json").exists()]
    if not a.tables_only:
        run_processes([_command(a, v, s) for v, s in todo], a.jobs)
    found = {v: [directory(v, s) / "metrics.json" for s in a.seeds] for v in a.variants}
    cells = {v: [json.loads(p.read_text()) for p in paths if p.exists()] for v, paths in found.items()}
    cells = {variant: runs for variant, runs in cells.items() if runs}
    a.out.with_suffix(".json").write_text(json.dumps(cells, indent=1))
    a.out.with_suffix(".md").write_text(f"# LeNet on Fashion-MNIST\n\n{__doc__}\n{tables(cells)}")
    print(tables(cells))


def _command(a: argparse.Namespace, variant: str, seed: int) -> list[str]:
    return [sys.executable, __file__, "--cell", variant, str(seed), "--evaluate", a.evaluate, "--runs", str(a.runs)]


def run_processes(commands: list[list[str]], jobs: int) -> None:
    """Run commands, `jobs` at once with one thread each; stop with the first that fails."""
    import os

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    work: Callable[[list[str]], Any] = lambda c: subprocess.run(c, check=True, env=environment)  # noqa: E731
    with ThreadPoolExecutor(jobs) as pool:
        for i, _ in enumerate(pool.map(work, commands)):
            print(f"{i + 1} of {len(commands)} cells finished", flush=True)


if __name__ == "__main__":
    main()
