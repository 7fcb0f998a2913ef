"""The command line: `sgmcmc-prune run | resume | summary | report`.

Options of `run` are derived from the configuration dataclasses. Bad input is one line on standard error and exit code
2; a failed run is one line and exit code 1; an interrupted run has saved everything, says how to go on, and exits with
0.
"""

import contextlib
import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any

import tyro

from sgmcmc_prune.chains.loop import Interrupted
from sgmcmc_prune.config import RunConfig
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.presets import PRESETS


@dataclass(frozen=True)
class Run(RunConfig):
    """A configuration, and where its run goes."""

    preset: tyro.conf.Suppress[str] = ""
    out: Path | None = None
    """Run directory; by default runs/PRESET-seedSEED."""
    overwrite: bool = False
    """Replace an earlier run in that directory."""

    def __call__(self) -> None:
        """Run, print the table, and say where everything is."""
        from sgmcmc_prune.run import run

        config = RunConfig(**{f.name: getattr(self, f.name) for f in fields(RunConfig)})
        out = self.out or Path("runs") / f"{self.preset}-seed{self.seed}"
        _show(out, lambda: run(config, out, self.overwrite))


@dataclass(frozen=True)
class Start:
    """Sample, learn the sparsity, prune, evaluate: start a run from a preset."""

    run: Any

    def __call__(self) -> None:
        """Start the run."""
        self.run()


@dataclass(frozen=True)
class Resume:
    """Continue a run that was killed or interrupted; it ends exactly as if it had not been."""

    run_dir: tyro.conf.Positional[Path]
    """The run directory."""

    def __call__(self) -> None:
        """Go on from the last checkpoints."""
        from sgmcmc_prune.run import resume

        _show(self.run_dir, lambda: resume(self.run_dir))


@dataclass(frozen=True)
class Summary:
    """Print ArviZ's table of the dense draws: mean, interval, ESS, R-hat, Monte-Carlo error."""

    run_dir: tyro.conf.Positional[Path]
    """The run directory."""
    probes: int = 2
    """How many probe examples' logits to show."""

    def __call__(self) -> None:
        """Print the table."""
        from sgmcmc_prune.inference_data import format_table, summary

        print(format_table(summary(self.run_dir, probes=self.probes)))


@dataclass(frozen=True)
class Report:
    """Draw the figures of a run and one self-contained HTML page."""

    run_dir: tyro.conf.Positional[Path]
    """The run directory."""

    def __call__(self) -> None:
        """Write RUN/report/."""
        from sgmcmc_prune.report import write_report

        print(f"report: {write_report(self.run_dir)}")


def _command_type() -> Any:
    """Every command, with one sub-command of `run` per preset."""
    presets = [
        Annotated[Run, tyro.conf.subcommand(name, default=Run(**vars(make())), description=make.__doc__)]
        for name, make in PRESETS.items()
    ]
    start: Any = dataclass(frozen=True)(
        type("Start", (Start,), {"__annotations__": {"run": reduce(or_, presets)}, "__doc__": Start.__doc__})
    )
    commands = [Annotated[start, tyro.conf.subcommand("run")]]
    commands += [Annotated[kind, tyro.conf.subcommand(kind.__name__.lower())] for kind in (Resume, Summary, Report)]
    return reduce(or_, commands)


def main(argv: list[str] | None = None) -> None:
    """Entry point; exits with 0, 1 (a failed run) or 2 (bad input)."""
    sys.path.insert(0, str(Path.cwd()))  # a user's network, "mynet:Net", lies where the command is typed
    try:
        _parse(argv)()
    except RunError as error:
        sys.exit(_complain(error, 1))
    except (ValueError, TypeError, FileNotFoundError) as error:
        sys.exit(_complain(error, 2))


def _parse(argv: list[str] | None) -> Callable[[], None]:
    """The command that was typed; bad options are one line, not tyro's box."""
    options = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            command: Callable[[], None] = tyro.cli(
                _command_type(), prog="sgmcmc-prune", args=argv, config=options, description=__doc__.splitlines()[0]
            )
    except SystemExit as stop:
        if stop.code:
            print(f"sgmcmc-prune: {_unbox(box.getvalue())}", file=sys.stderr)
        raise
    return command


def _unbox(box: str) -> str:
    """What tyro's box says, in one line: the complaint, the best suggestion, and where the help is."""
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    blocks = " ".join("\0" if set(line) == {"─"} else line for line in lines).split("\0")
    blocks = [" ".join(block.split()).rstrip(".") for block in blocks if "helptext:" not in block]
    meant = re.compile(r"(Perhaps you meant: \S+).*")
    return ". ".join(meant.sub(r"\1", block) for block in blocks)


def _show(out: Path, work: Callable[[], dict[str, Any]]) -> None:
    from sgmcmc_prune.tables import diagnostics_lines, metrics_table

    print(f"run directory: {out}", flush=True)
    try:
        metrics = work()
    except Interrupted:
        print(f"interrupted; everything is saved. Go on with: sgmcmc-prune resume {out}")
        return
    print()
    print(metrics_table(metrics))
    print()
    print("\n".join(diagnostics_lines(metrics)))
    print(f"\nmetrics: {out / 'metrics.json'}   figures: sgmcmc-prune report {out}")


def _complain(error: Exception, code: int) -> int:
    print(f"sgmcmc-prune: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
