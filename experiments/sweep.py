"""What the sweeps share: one process per cell, on one thread, resumable; means with intervals; Markdown tables.

A cell is (variant, seed) with its own run directory. A cell with `metrics.json` is finished and never computed again; a
cell that was begun is resumed.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from sgmcmc_prune.predictive.intervals import mean_and_half_width
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.tables import decision
from sgmcmc_prune.text_table import format_rows

ROOT = Path(__file__).resolve().parents[1]
Cells = dict[str, list[dict[str, Any]]]


def results(script: str) -> Path:
    """Where the results of a script are kept: beside it."""
    return Path(script).resolve().parent / "results"


def parser(description: str, name: str, variants: Sequence[str], script: str) -> argparse.ArgumentParser:
    """The options that every sweep has; `script` is the file of the experiment."""
    p = argparse.ArgumentParser(description=description)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--variants", nargs="+", choices=list(variants), default=list(variants))
    p.add_argument("--jobs", type=int, default=2, help="processes at once, one thread each")
    p.add_argument("--evaluate", choices=("test", "validation"), default="test")
    p.add_argument("--runs", type=Path, default=ROOT / "runs" / name)
    p.add_argument("--out", type=Path, default=results(script) / name)
    p.add_argument("--tables-only", action="store_true", help="only write the tables of the finished cells")
    p.add_argument("--cell", nargs=2, metavar=("VARIANT", "SEED"), help=argparse.SUPPRESS)
    return p


def directory(a: argparse.Namespace, variant: str, seed: int) -> Path:
    """The run directory of a cell."""
    folder: Path = a.runs / f"{variant.replace(',', '').replace(' ', '-')}-seed{seed}"
    return folder


def run_or_resume(config: RunConfig, out: Path) -> None:
    """Compute one cell in this process; an interrupted one ends with a line that says so."""
    from sgmcmc_prune.errors import Interrupted
    from sgmcmc_prune.run.main import resume, run

    try:
        if (out / "config.json").exists():
            resume(out, progress=False)
        else:
            run(config, out, progress=False)
    except Interrupted:
        raise SystemExit(f"interrupted, everything is saved in {out}; the same command goes on") from None


def run_missing(a: argparse.Namespace, script: str, options: Sequence[str] = ()) -> Cells:
    """Compute the cells that are missing, `a.jobs` at once; return the metrics of all that are finished.

    `options` are those of the script's own that a cell needs, too.
    """
    todo = [(v, s) for v in a.variants for s in a.seeds if not (directory(a, v, s) / "metrics.json").exists()]
    if not a.tables_only:
        common = ["--evaluate", a.evaluate, "--runs", str(a.runs), *options]
        module = ".".join(Path(script).resolve().relative_to(ROOT).with_suffix("").parts)
        command = [sys.executable, "-m", module]
        search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": search}
        with ThreadPoolExecutor(a.jobs) as pool:
            started = {
                pool.submit(subprocess.run, [*command, "--cell", v, str(s), *common], env=environment): (
                    v,
                    s,
                )
                for v, s in todo
            }
            for done in as_completed(started):
                variant, seed = started[done]
                if done.result().returncode:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise SystemExit(f"{variant}, seed {seed} has not finished (see above)")
                print(f"finished: {variant}, seed {seed}", flush=True)
    found = {v: [directory(a, v, s) / "metrics.json" for s in a.seeds] for v in a.variants}
    cells = {v: [_of_split(p, a.evaluate) for p in paths if p.exists()] for v, paths in found.items()}
    return {variant: runs for variant, runs in cells.items() if runs}


def _of_split(path: Path, split: str) -> dict[str, Any]:
    """The metrics of a finished cell, which must be those of the split that was asked for."""
    metrics: dict[str, Any] = json.loads(path.read_text())
    if metrics.get("split", split) != split:
        raise SystemExit(f"{path} holds scores of the {metrics['split']} split, not {split}; choose another --runs")
    return metrics


def write(a: argparse.Namespace, cells: Cells, title: str, text: str) -> None:
    """Write the metrics as JSON and the tables as Markdown, and print the tables."""
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.with_suffix(".json").write_text(json.dumps(cells, indent=1) + "\n")
    a.out.with_suffix(".md").write_text(f"# {title}\n\n{text}\n")
    print(text)


def interval(values: Sequence[float], digits: int = 4) -> str:
    """Mean and half-width of the 95 % Student-t interval over seeds."""
    mean, half = mean_and_half_width(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned table in a code block."""
    return "```\n" + format_rows(header, rows) + "\n```"


def keys(run: dict[str, Any], when: str) -> list[tuple[str, str]]:
    """Criterion and decision of every pruned row of a run."""
    return [(r["criterion"], decision(r)) for r in run["pruned"] if r["when"] == when]


def find(run: dict[str, Any], when: str, key: tuple[str, str]) -> dict[str, Any]:
    """The pruned row with this criterion and decision."""
    found: dict[str, Any] = next(r for r in run["pruned"] if r["when"] == when and (r["criterion"], decision(r)) == key)
    return found
