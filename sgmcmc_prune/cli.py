"""The command line: `sgmcmc-prune run | sample | resume | summary | report | export | compare | reproduce | ...`.

Options of `run` are derived from the configuration dataclasses. Bad input is one line on standard error and exit code
2; a failed run is one line and exit code 1. An interrupted command ends with 130 (SIGINT) or 143 (SIGTERM); an
interrupted run has saved everything, and says how to go on.
"""

import contextlib
import io
import os
import pkgutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial, reduce
from operator import or_
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import tyro

from sgmcmc_prune import __version__
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.errors import Interrupted, RunError
from sgmcmc_prune.machine.allocator import keep_freed_memory
from sgmcmc_prune.machine.help_text import in_one_line, unbox
from sgmcmc_prune.run.config import NetworkChoice, RunConfig
from sgmcmc_prune.run.presets import PRESETS

#: What `sgmcmc-prune --help` begins with.
ABOUT = (
    "Sample neural networks, learn how sparse they are, prune them, and check how far the draws can be trusted. Begin "
    "with `sgmcmc-prune run regression`, two minutes on two cores; your own data are for `sgmcmc-prune sample`. "
    "`sgmcmc-prune COMMAND --help` says what a command takes, and `sgmcmc-prune list` which networks, data sets, "
    "priors, samplers and criteria there are."
)


RunDirectory = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]


@dataclass(frozen=True)
class Run(RunConfig):
    """A configuration, and where its run goes."""

    preset: tyro.conf.Suppress[str] = ""
    start: tyro.conf.Suppress[Literal["random", "trained"]] = "random"  # trained suits the step that `sample` finds
    out: Path | None = None
    """Run directory; by default runs/PRESET-seedSEED."""
    overwrite: bool = False
    """Replace an earlier run in that directory."""

    def __call__(self) -> None:
        """Run, print the table, and say where everything is."""
        from sgmcmc_prune.run.main import run

        config = RunConfig(**{f.name: getattr(self, f.name) for f in fields(RunConfig)})
        out = self.out.expanduser() if self.out else Path("runs") / f"{self.preset}-seed{self.seed}"
        _show(out, lambda: run(config, out, self.overwrite))


@dataclass(frozen=True)
class Start:
    """Sample, learn the sparsity, prune, evaluate: start a run from a preset."""

    run: Any

    def __call__(self) -> None:
        """Start the run."""
        self.run()


@dataclass(frozen=True)
class Sample:
    """Sample a network on your own data, with the settings that the library chooses for them, as its call `sample`."""

    data: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="DATA")]]
    """csv:FILE:TARGET, npz:FILE, uci:NAME, idx:FOLDER, your own as package.module:callable, or a name that `list
    data-set` prints."""
    likelihood: str
    """Of each target: gaussian, categorical, bernoulli, poisson, or your own."""
    likelihood_options: tuple[str, ...] = ()
    """NAME=VALUE for it, such as noise=heteroscedastic of gaussian."""
    data_options: tuple[str, ...] = ()
    """NAME=VALUE for the data, such as test=0.2 of a table."""
    data_dir: Path | None = None
    """Folder with the official files of a set that has such."""
    model: str = "mlp"
    """The network: a name that `list network` prints, or your own as package.module:callable."""
    model_options: tuple[str, ...] = ()
    """NAME=VALUE for it. By default an mlp has widths=(50,) activation=tanh."""
    in_chain: tuple[str, ...] = ()
    """Criteria that prune inside the chains, such as expected_log_odds; after sampling every run prunes anyway."""
    length: float = 1.0
    """How long each chain samples: 1 is 30,000 steps after a burn-in of 4,000; 0.1, for a first look, is 3,000 steps
    after the same burn-in."""
    batch_size: int | None = None
    """By default all examples, where a step can afford them: then no minibatch noise heats the chains."""
    chains: int = 4
    """Chains; two or more tell whether they agree."""
    seed: int = 0
    """Key of everything random."""
    device: str = "cpu"
    """Where."""
    out: Path | None = None
    """Run directory; by default runs/sample-seedSEED. The same command goes on there."""
    overwrite: bool = False
    """Replace an earlier run in that directory."""

    def __call__(self) -> None:
        """Choose the settings, run, print the table, and say where everything is."""
        from sgmcmc_prune.run.config import DataConfig, ModelConfig
        from sgmcmc_prune.sampling import sample_by_name

        widths = ("widths=(50,)", "activation=tanh") if self.model == "mlp" else ()
        out = self.out.expanduser() if self.out else Path("runs") / f"sample-seed{self.seed}"
        same = ("likelihood_options", "batch_size", "length", "in_chain", "chains", "seed", "device", "overwrite")
        run = partial(
            sample_by_name,
            DataConfig(self.data, self.data_options, self.data_dir, validation=0),
            ModelConfig(self.model, self.model_options or widths),
            self.likelihood,
            out=out,
            **{name: getattr(self, name) for name in same},
        )
        _show(out, run, f'predictions, in Python: sgmcmc_prune.open_posterior("{out}").predict(x)')


@dataclass(frozen=True)
class Resume:
    """Continue a run that was killed or interrupted; it ends exactly as if it had not been."""

    run_dir: RunDirectory
    """The run directory."""

    def __call__(self) -> None:
        """Go on from the last checkpoints."""
        from sgmcmc_prune.run.main import resume

        _show(self.run_dir, lambda: resume(self.run_dir))


@dataclass(frozen=True)
class Summary:
    """Print ArviZ's table of the dense draws: mean, interval, ESS, R-hat, Monte-Carlo error."""

    run_dir: RunDirectory
    """The run directory."""
    probes: int = 2
    """How many probe examples' logits to show."""
    weights: bool = False
    """Add R-hat and ESS of the weights, by layer (of 10,000 of them at most); it reads the full weight draws."""

    def __call__(self) -> None:
        """Print the table."""
        from sgmcmc_prune.diagnostics.inference_data import format_table, summary
        from sgmcmc_prune.run.tables import weights_table

        print(format_table(summary(self.run_dir, probes=self.probes)))
        if self.weights:
            from sgmcmc_prune.diagnostics import of_weights

            print(f"\n{weights_table(of_weights(self.run_dir, progress=True))}")


@dataclass(frozen=True)
class Report:
    """Draw the figures of a run and one self-contained HTML page; of several runs, one page that compares them."""

    run_dirs: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN [RUN ...]")]]
    """The run directory, or several."""
    out: Path | None = None
    """The page that compares several runs, *.html; by default report-comparison.html. One run's goes to RUN/report/."""

    def __call__(self) -> None:
        """Write RUN/report/, or the page that compares."""
        os.environ["MPLBACKEND"] = "agg"  # the one that is used; the user's may not exist here
        if not self.run_dirs:
            raise ValueError("report needs a run directory, or several to compare")
        if len(self.run_dirs) == 1 and self.out is not None:
            raise ValueError(f"--out is for several runs; the report of one goes to {self.run_dirs[0] / 'report'}")
        from sgmcmc_prune.report import write_comparison, write_report

        if len(self.run_dirs) == 1:
            print(f"report: {write_report(self.run_dirs[0])}")
        else:
            out = self.out or Path("report-comparison.html")
            print(f"comparison: {write_comparison(self.run_dirs, out)}")


@dataclass(frozen=True)
class Export(NetworkChoice):
    """Write a pruned network of a run to one file, smaller where whole units are pruned; measure its latency."""

    run_dir: RunDirectory
    """The run directory."""
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FILE")]]
    """The file: *.safetensors for `store.network.load_network`, or a program, *.pt2 (torch.export) or *.onnx."""

    def __call__(self) -> None:
        """Write the file, print the table."""
        from sgmcmc_prune.run.export import export, table

        result = export(self.run_dir, self.out, self)
        print(f"{table(result)}\n\nnetwork: {self.out} ({result['bytes']:,} bytes)")


@dataclass(frozen=True)
class Prepare:
    """Decode ImageNet, or other pictures in class folders, into shards. Interrupted, or damaged: run it again."""

    dataset: tyro.conf.Positional[Literal["imagenet"]]
    """The kind of data set."""
    src: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SRC")]]
    """Folder with train/CLASS/*.jpg and val/CLASS/*.jpg."""
    dst: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DST")]]
    """Folder for the shards."""
    size: int = 256
    """Height and width of the stored squares; the network sees the middle 7/8."""
    processes: int | None = None
    """Processes that decode; by default one per available processor."""
    skip_corrupt: bool = False
    """Leave out, name and count pictures that cannot be decoded."""

    def __call__(self) -> None:
        """Write the shards and say what is in them."""
        from sgmcmc_prune.data import shards
        from sgmcmc_prune.machine.cores import available_cores

        processes = available_cores() if self.processes is None else self.processes
        index = shards.prepare(self.src, self.dst, self.size, processes, self.skip_corrupt)
        for split in shards.SPLITS:
            found = index[split]
            print(f"{split}: {found['pictures']} pictures in {found['shards']} shards, {len(found['skipped'])} skipped")
        print(f"next: sgmcmc-prune run imagenet --device cuda --data.data-dir {self.dst}")


@dataclass(frozen=True)
class Certify:
    """Test every sampler against exact answers; exit code 0 only if each row of the table comes out as it must."""

    quick: bool = False
    """Under a minute of one core, instead of the full run."""
    out: Path | None = None
    """Write all rows to this JSON file, and a page beside it."""
    seed: int = 0
    """Key of everything random, 0 to 3999."""
    false_alarm: float = 1e-3
    """Probability that any row of correct samplers fails."""

    def __call__(self) -> None:
        """Run the suite, print the table."""
        from tqdm import tqdm

        from sgmcmc_prune.certify import certify

        certificate = certify(self.quick, self.seed, self.false_alarm, tqdm)
        print(certificate.format())
        if self.out is not None:
            level = f" --false-alarm {self.false_alarm:g}" if self.false_alarm != Certify.false_alarm else ""
            command = f"sgmcmc-prune certify{' --quick' * self.quick} --seed {self.seed}{level} --out {self.out}"
            certificate.write(self.out, command)
        if not certificate.passed:
            sys.exit(1)


@dataclass(frozen=True)
class AuditRun(RunConfig):
    """A configuration to audit."""

    preset: tyro.conf.Suppress[str] = ""
    start: tyro.conf.Suppress[Literal["random", "trained"]] = "random"

    def __call__(self) -> None:
        """Print one line for each finding; exit code 1 if there is any."""
        from sgmcmc_prune.run.audit import audit_run

        found, findings = audit_run(RunConfig(**{f.name: getattr(self, f.name) for f in fields(RunConfig)}))
        print("\n".join(found))
        checked = "gradients over an epoch, N, loss reduction, prior, augmentation, randomness, dependence on the batch"
        print("\n".join(findings) or f"nothing found; checked: {checked}")
        if findings:
            sys.exit(1)


@dataclass(frozen=True)
class Audit:
    """Check that model, loss, data and prior of a configuration give the sampler the gradient it needs."""

    audit: Any

    def __call__(self) -> None:
        """Audit it."""
        self.audit()


@dataclass(frozen=True)
class Bench:
    """Measure this machine: a step, the loop, data, many chains, the store, the predictive. Ratios within one run."""

    what: tyro.conf.Positional[
        Literal["step", "train", "loop", "data", "chains", "store", "predict", "latency", "csr", "smaller"]
    ]
    """One step beside fused optimisers; the loop beside plain SGD; all of a run beside a loop written by hand; pictures
    delivered beside pictures needed; eight chains in a loop, batched and in processes; the share of EM and store; many
    draws at once; a pruned network masked, cut and exported, beside the dense one; sparse linear layers; a chain in
    the cut network."""
    network: Literal["lenet", "mlp", "resnet18", "resnet20", "resnet50"] | None = None
    """Step: lenet or resnet18 (default). Data: resnet18, resnet20 (default) or resnet50. Train, predict, latency and
    smaller: mlp, lenet or resnet20; by default mlp and lenet. Loop: lenet and resnet20."""
    rounds: int = 31
    """Interleaved repeats."""
    device: str = "cpu"
    """Where."""
    run: Path | None = None
    """Latency: of a finished run's network, pruned by its first criterion to its largest target."""
    out: Path | None = None
    """Also write the result as JSON."""

    def __call__(self) -> None:
        """Measure, and print the table."""
        from sgmcmc_prune import bench
        from sgmcmc_prune.run.checks import check_device
        from sgmcmc_prune.store.files import write_json

        check_device(self.device)
        result, table = bench.run(self.what, self.network, self.rounds, self.device, self.run)
        print(table)
        if self.out is not None:
            write_json(self.out, result)


@dataclass(frozen=True)
class Compare(Comparison):
    """Compare methods at one budget of gradient evaluations, on any data set and network. The same call continues."""

    out: Path = Path("runs/compare")
    """Folder of the comparison."""
    jobs: int = 1
    """Processes at once."""
    reference: str | None = None
    """Method that the others are measured against in the printed table; by default the track's, or the first of it."""
    submit: int = 0
    """Send so many jobs to a cluster, which share the work, and compute nothing here (needs the extra `cluster`)."""
    cluster: Literal["slurm", "local"] = "slurm"
    """Where --submit sends them; local: processes of this machine."""
    submit_options: tuple[str, ...] = ()
    """NAME=VALUE for submitit, such as timeout_min=600 gpus_per_node=1 slurm_partition=gpu."""

    def __call__(self) -> None:
        """Compute what is missing, or have it computed, write the table, print it."""
        from sgmcmc_prune.cells import interruption_in_words
        from sgmcmc_prune.compare.comparison import compare
        from sgmcmc_prune.compare.methods import find
        from sgmcmc_prune.compare.table import default_reference, summary

        comparison = Comparison(**{f.name: getattr(self, f.name) for f in fields(Comparison)})
        for name in (*comparison.methods, *([] if self.reference is None else [self.reference])):
            find(name)
        if self.submit:
            self._submit(comparison)
            return
        with interruption_in_words():
            rows = compare(comparison, self.out, self.jobs)
        reference = self.reference or default_reference(rows)
        print(f"{summary(rows, reference, comparison.track)}\n\ntable: {self.out / 'comparison.csv'}")
        if all(row["reason"] for row in rows):  # each says why
            sys.exit(1)

    def _submit(self, comparison: Comparison) -> None:
        from sgmcmc_prune.choices import options
        from sgmcmc_prune.compare.jobs import submit

        given = options(self.submit_options, "submit_options")
        sent = submit(comparison, self.out, self.submit, self.cluster, self.jobs, **given)
        print(f"jobs {', '.join(job.job_id for job in sent)}: what they print goes to {self.out / 'jobs'}")
        print("the same command without --submit helps them, waits for them, and prints the table")


@dataclass(frozen=True)
class Methods:
    """List the methods that `compare` knows, by track."""

    def __call__(self) -> None:
        """Print name, family, paper and scope of each."""
        from sgmcmc_prune.compare.methods.listing import listing

        print(listing())


@dataclass(frozen=True)
class List:
    """List the names that every choice knows, with what they stand for and their options."""

    kind: tyro.conf.Positional[Annotated[str | None, tyro.conf.arg(metavar="[KIND]")]] = None
    """Only this kind: network, data-set, likelihood, prior, sampler, mass-matrix, criterion, decision, curvature,
    growth, control or method; plurals are understood."""

    def __call__(self) -> None:
        """Print a block for each kind, the comparison's methods last."""
        from sgmcmc_prune.compare.methods.listing import listing
        from sgmcmc_prune.run.vocabulary import SETTINGS, kind_called, vocabulary

        blocks: dict[str, Callable[[], str]] = {kind.replace(" ", "-"): partial(vocabulary, kind) for kind in SETTINGS}
        blocks["method"] = listing
        kinds = list(blocks) if self.kind is None else [kind_called(self.kind, blocks)]
        print("\n\n".join(blocks[kind]() for kind in kinds))


@dataclass(frozen=True)
class Reproduce:
    """In a clone's folder: run a paper's experiments, draw its figures, write its claims beside ours on one page."""

    paper: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="PAPER")]]
    """ke-fan, markovic, dhahri, jantre, saha, deng, sun, csgmcmc, wenzel or izmailov."""
    budget: Literal["desk", "paper"] = "desk"
    """What two cores can do, or the paper's own lengths."""
    figures_only: bool = False
    """Only read what is stored, committed results included: seconds."""
    jobs: int = 1
    """Processes at once."""
    seeds: tuple[int, ...] = ()
    """A list of seeds; by default each script's own."""
    data_dir: Path | None = None
    """Folder of CIFAR, ImageNet or UCI_Datasets; without it the desk leaves their scripts out, and says so."""
    device: str = "cpu"
    """Where."""
    out: Path = Path("runs/reproduce")
    """The page goes to PAPER-BUDGET there, with its figures and results."""

    def __call__(self) -> None:
        """Reproduce it; the scripts are no part of the package, so they are looked for where the command is typed."""
        if not Path("experiments", "reproduce.py").is_file():
            raise ValueError(
                "the papers' scripts are in a clone of the repository; change into its folder and try again"
            )
        os.environ["MPLBACKEND"] = "agg"
        pkgutil.resolve_name("experiments.reproduce:reproduce")(**vars(self))


def _from_preset(name: str, command: type, configuration: Any) -> Any:
    """A command with one sub-command per preset."""
    presets = []
    for preset, make in PRESETS.items():
        default = configuration(**vars(make()))
        presets.append(
            Annotated[configuration, tyro.conf.subcommand(preset, default=default, description=make.__doc__)]
        )
    members = {"__annotations__": {name: reduce(or_, presets)}, "__doc__": command.__doc__}
    made: Any = dataclass(frozen=True)(type(command.__name__, (command,), members))
    return Annotated[made, tyro.conf.subcommand(name)]


def _command_type() -> Any:
    """Every command, with one sub-command of `run` and `audit` per preset."""
    for documented in (RunConfig, Comparison, NetworkChoice):
        in_one_line(documented)
    commands = [_from_preset("run", Start, Run), _from_preset("audit", Audit, AuditRun)]
    kinds = (Sample, Resume, Summary, Report, Export, Prepare, Certify, Bench, Compare, Methods, List, Reproduce)
    commands += [Annotated[kind, tyro.conf.subcommand(kind.__name__.lower())] for kind in kinds]
    return reduce(or_, commands)


def main(argv: list[str] | None = None) -> None:
    """Entry point; exits with 0, 1 (a failed run), 2 (bad input), 130 (SIGINT) or 143 (SIGTERM)."""
    if (sys.argv[1:] if argv is None else argv) == ["--version"]:
        print(f"sgmcmc_prune {__version__}")
        return
    keep_freed_memory()
    _open_closed_streams()
    try:
        if sys.flags.optimize:
            raise ValueError("Python runs without assertions, under which Zarr fails; leave out -O and PYTHONOPTIMIZE")
        sys.path.insert(0, _working_directory())  # a user's network, "mynet:Net", lies where the command is typed
        with _terminated():
            _parse(argv)()
    except KeyboardInterrupt:
        sys.exit(_complain(Interrupted(signal.SIGINT), 128 + signal.SIGINT))
    except Interrupted as stop:
        sys.exit(_complain(stop, stop.exit_code))
    except RunError as error:
        sys.exit(_complain(error, 1))
    except BrokenPipeError:  # nobody reads on, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, TypeError, OSError) as error:
        sys.exit(_complain(error, 2))


def _open_closed_streams() -> None:
    """Let what nobody reads, as after `2>&-`, go nowhere: Python has None there, on which progress bars fail."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        raise ValueError("the working directory does not exist any more; change into another") from None


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM end a command as it should, with what is written half done away; a run saves before (main thread)."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(argv: list[str] | None) -> Callable[[], None]:
    """The command that was typed; bad options are one line, not tyro's box."""
    options = (tyro.conf.OmitSubcommandPrefixes,)
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            command: Callable[[], None] = tyro.cli(
                _command_type(), prog="sgmcmc-prune", args=argv, config=options, description=ABOUT
            )
    except SystemExit as stop:
        if stop.code:
            print(f"sgmcmc-prune: {unbox(box.getvalue(), sys.argv[1:] if argv is None else argv)}", file=sys.stderr)
        raise
    return command


def _show(out: Path, work: Callable[[], dict[str, Any]], last: str = "") -> None:
    from sgmcmc_prune.machine.distributed import is_first_process, resume_command
    from sgmcmc_prune.run.headline import headline, noise_line
    from sgmcmc_prune.run.tables import diagnostics_lines, metrics_table

    try:
        metrics = work()
    except Interrupted as stop:
        if is_first_process():
            print(f"interrupted; everything is saved. Go on with: {resume_command(out)}")
        sys.exit(stop.exit_code)
    if not metrics:  # a process that only took its part in the chains
        return
    print()
    print("\n".join(headline(metrics)))
    print()
    print(metrics_table(metrics))
    if note := noise_line(metrics):
        print(note)
    print()
    print("\n".join(diagnostics_lines(metrics)))
    print(f"\nrun directory: {out}   figures: sgmcmc-prune report {out}")
    if last:
        print(last)


def _complain(error: BaseException, code: int) -> int:
    print(f"sgmcmc-prune: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
