"""What the experiments share: their options, their cells, means with intervals, Markdown tables.

Every experiment is a grid of cells (`sgmcmc_prune.cells`): a command computes those that are missing, so it goes on
where it was stopped. A sweep's cell is (variant, seed) with a run directory, and its `metrics.json` makes it finished.
"""

import argparse
import json
import math
import shlex
import statistics
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sgmcmc_prune import cells
from sgmcmc_prune.cells import Cell, Files, Records, missing, product
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.predictive.intervals import mean_and_half_width
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.results import OTHERS, result_rows
from sgmcmc_prune.run.tables import decision
from sgmcmc_prune.settings import from_json
from sgmcmc_prune.store.result_table import write_results
from sgmcmc_prune.text_table import format_rows

ROOT = Path(__file__).resolve().parents[1]
Cells = dict[str, list[dict[str, Any]]]


def results(script: str) -> Path:
    """Where the results of a script are kept: beside it."""
    return Path(script).resolve().parent / "results"


def parser(description: str | None, seeds: Sequence[int], script: str) -> argparse.ArgumentParser:
    """The options that every experiment has; `script` is its file."""
    p = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    p.add_argument("--seeds", type=int, nargs="+", default=list(seeds), help="by default %(default)s")
    p.add_argument("--jobs", type=int, default=1, help="processes at once, by default %(default)s")
    p.add_argument("--out", type=Path, default=results(script), help="of the results, by default %(default)s")
    return p


def sweep_parser(description: str, name: str, variants: Sequence[str], script: str) -> argparse.ArgumentParser:
    """The options that every sweep has; `name` is that of its results and of its folder of runs."""
    p = parser(description, (0, 1, 2), script)
    p.set_defaults(jobs=2, out=results(script) / name)
    add_names(p, "--variants", list(variants))
    p.add_argument("--evaluate", choices=("test", "validation"), default="test")
    p.add_argument("--runs", type=Path, default=ROOT / "runs" / name)
    p.add_argument("--tables-only", action="store_true", help="only write the tables of the finished cells")
    return p


def add_names(p: argparse.ArgumentParser, option: str, names: Sequence[str]) -> None:
    """Add an option that takes some of the names, by default all; the help lists them once, as a shell reads them."""
    p.add_argument(option, nargs="+", choices=names, default=names, metavar="NAME", help="some of those below")
    units = "  ".join(shlex.quote(name).replace(" ", "\N{NO-BREAK SPACE}") for name in names)  # no line ends in a name
    lines = textwrap.wrap(units, 76, break_on_hyphens=False, initial_indent="  ", subsequent_indent="  ")
    p.epilog = "\n".join([f"{option}, by default all:", *lines]).replace("\N{NO-BREAK SPACE}", " ")
    p.formatter_class = argparse.RawDescriptionHelpFormatter


def add_places(p: argparse.ArgumentParser) -> None:
    """Add where the images are, and where to compute, to the options of a sweep over runs."""
    p.add_argument("--data-dir", type=Path, help="as of `sgmcmc-prune run`")
    p.add_argument("--device", default="cpu")


def run_or_resume(config: dict[str, Any], out: str, **_: Any) -> None:
    """Compute the cell of a sweep that is a run; a run writes its own `metrics.json`."""
    from sgmcmc_prune.run.main import resume, run

    if (Path(out) / "config.json").exists():
        resume(Path(out), progress=False)
    else:
        run(from_json(config, RunConfig), Path(out), progress=False)


def run_or_train(variant: str, config: dict[str, Any], out: str, **_: Any) -> dict[str, Any] | None:
    """Compute the cell of a sweep that is a run, or (variants "sgd" and "adamw") the network trained in its stead."""
    from sgmcmc_prune.baselines.dense import train_and_prune
    from sgmcmc_prune.run.run import Run

    if variant in ("sgd", "adamw"):
        return train_and_prune(Run(from_json(config, RunConfig)), variant, progress=False)  # type: ignore[arg-type]
    return run_or_resume(config, out)


@contextmanager
def in_words() -> Iterator[None]:
    """End the program with one line where the input is bad (exit code 2), cells fail (1), or are interrupted."""
    try:
        with cells.interruption_in_words():
            yield
    except (RunError, ValueError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(1 if isinstance(error, RunError) else 2) from None


def complete(
    grid: Files | Records,
    jobs: int,
    show: Callable[[Any], str] | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """The results of all cells, computed where they are missing; `show` turns a result into its line."""

    def line(cell: Cell, result: Any) -> str:
        return show(result) if show else f"finished: {cell.name}"

    with in_words():
        return cells.complete(grid, jobs, threads, True, line, device)


def table_of_seeds(
    script: str,
    description: str | None,
    seeds: Sequence[int],
    function: Callable[[int], dict[str, Any]],
    header: Sequence[str],
    row: Callable[[dict[str, Any]], list[str]],
    text: str,
    argv: list[str] | None,
) -> None:
    """A cell for each seed, kept in a file named as the script; write and print the table, with a line for each."""
    args, name = parser(description, seeds, script).parse_args(argv), Path(script).stem
    grid = Records(product(function, {"seed": args.seeds}), args.out / f"{name}.json")
    table = markdown(header, [row(record) for record in complete(grid, args.jobs, threads=1)])
    (args.out / f"{name}.md").write_text(f"{text}\n{table}\n", encoding="utf-8")
    print(table)


def run_dir(a: argparse.Namespace, variant: str, seed: int) -> Path:
    """The run directory of a sweep's cell."""
    folder: Path = a.runs / f"{variant.replace(',', '').replace(' ', '-')}-seed{seed}"
    return folder


def sweep(a: argparse.Namespace, function: Callable[..., Any], places: Callable[[str, int], dict[str, Any]]) -> Cells:
    """The metrics of a sweep's cells by variant, computed on one thread each where they are missing.

    `function` is called with variant, seed, split (that of --evaluate), `out` (the run directory), and what `places`
    gives for a variant and a seed.
    """

    def located(cell: Cell) -> Cell:
        variant, seed = cell.settings["variant"], cell.settings["seed"]
        return replace(cell, places={"out": str(run_dir(a, variant, seed))} | places(variant, seed))

    chosen = product(function, {"variant": a.variants, "seed": a.seeds}, {"split": a.evaluate})
    grid = Files(list(map(located, chosen)), lambda cell: Path(cell.places["out"]) / "metrics.json", a.runs / ".claims")
    if not a.tables_only:
        complete(grid, a.jobs, threads=1, device=getattr(a, "device", "cpu"))
    with in_words():
        if said := missing(grid):
            print(said, file=sys.stderr)
        found = [(cell.settings["variant"], grid.find(cell)) for cell in grid.cells]
    return {v: runs for v in a.variants if (runs := [run for name, run in found if name == v and run is not None])}


def write(a: argparse.Namespace, found: Cells, title: str, text: str) -> None:
    """Write the metrics as JSON and the tables as Markdown, and print the tables."""
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    write_tables(a, title, text)


def write_runs(a: argparse.Namespace, found: Cells, title: str, text: str) -> None:
    """As `write`, of a sweep whose cells are runs; every network of them is a row of a CSV, too."""
    write(a, found, title, text)
    runs = [(variant, run) for variant, each in found.items() for run in each]
    rows = [row for variant, run in runs for row in result_rows(run, run_dir(a, variant, run["seed"]), variant)]
    write_results(a.out.with_suffix(".csv"), rows, OTHERS)


def write_tables(a: argparse.Namespace, title: str, text: str) -> None:
    """Write the tables as Markdown, and print them."""
    a.out.with_suffix(".md").write_text(f"# {title}\n\n{text}\n")
    print(text)


def plus_minus(mean: float, half: float, digits: int, sign: str = "") -> str:
    """A mean, and half of its interval if there is one; `sign` "+" shows the sign of a difference."""
    return f"{mean:{sign}.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")


def interval(values: Sequence[float], digits: int = 4) -> str:
    """Mean and half-width of the 95 % Student-t interval over seeds."""
    mean, half = map(float, mean_and_half_width(values))
    return plus_minus(mean, half, digits)


def mean_and_error(values: Sequence[float], digits: int) -> str:
    """Mean and standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.{digits}f} ({error:.{digits}f})"


def scores(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[str]:
    """The interval of each column."""
    return [interval([row[name] for row in rows]) for name in columns]


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
