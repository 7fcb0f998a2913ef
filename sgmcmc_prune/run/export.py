"""Take a pruned network home: physically smaller where whole units are pruned, in one file, with its latency measured.

Its latency stands beside that of the dense network written and read in the same format, so that both are called alike.

The network is the mean of the draws of the last cycle under the mask: within a cycle a chain has one mode. Distilled,
it is trained from there to predict as all draws do together (`distil`).
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from sgmcmc_prune import choices
from sgmcmc_prune.likelihoods import Gaussian
from sgmcmc_prune.likelihoods.gaussian import LearnedNoise
from sgmcmc_prune.machine import timing
from sgmcmc_prune.models import num_parameters
from sgmcmc_prune.predictive.flops import multiply_adds
from sgmcmc_prune.predictive.predict import outputs_of
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.masked import masked_network
from sgmcmc_prune.pruning.shrink import shrink
from sgmcmc_prune.run.chosen import chosen
from sgmcmc_prune.run.config import NetworkChoice
from sgmcmc_prune.run.directory import open_run
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.store.network import About, load_network, require_file, save_network
from sgmcmc_prune.store.program import PROGRAMS, read_program, require_program, write_program
from sgmcmc_prune.text_table import format_rows, number

#: Inputs in a pass whose latency is measured.
BATCHES = (1, 256)
#: About how long each measurement of it takes.
SECONDS_OF_A_BLOCK = 0.03
NO_UNIT = "no unit could be removed whole"
#: Classes or columns that a line names.
MOST_NAMES = 20


def export(run_dir: Path, out: Path, choice: NetworkChoice, rounds: int = 31) -> dict[str, Any]:
    """Write a pruned network of a run to a file, read it again, and measure it.

    Parameters
    ----------
    run_dir : Path
        A finished run that kept its weight draws.
    out : Path
        The file: weights for `store.network.load_network` (.safetensors), or a program that needs none of this
        library, of torch (.pt2) or of ONNX (.onnx).
    choice : NetworkChoice
    rounds : int
        Interleaved repeats of the latency.

    Returns
    -------
    dict
        `origin`, `inputs`, `outputs`, and what was `timed`, in words, `notes` on starved layers; `not_cut`: why it
        could not be made smaller, or None; `scores` on the run's split, by their headings, and what they are
        `scored_in`; `beside`: of a distilled network, the same of the one that it was and of all draws together, as the
        run's table has them; `dense` and `pruned`: parameters and multiply_adds of the network alone, without a learned
        noise; `latency`: by batch size, milliseconds of both, read from files of this format, and their ratio with its
        95 % interval; `bytes` of the file.

    Raises
    ------
    ValueError
        If `out` has another ending; if the run is not finished, does not have such a network, or kept no draws; if it
        shall be distilled, and its likelihood has no cross-entropy.
    """
    _check_format(out)
    run = open_run(run_dir)
    if choices.is_given(run.config.model.name):
        raise ValueError(
            f"{run_dir} was sampled from objects, which no file can hold: open it by the same call, posterior = "
            f"sgmcmc_prune.sample(..., out={str(run_dir)!r}); then posterior.prune(0.8).network(chain=0) is the "
            "nn.Module, for torch.save or torch.export"
        )
    if not run.places.metrics.is_file():
        raise ValueError(f"{run_dir} is not finished; go on with: sgmcmc-prune resume {run_dir}")
    config, data = run.config, run.data
    if choice.network == "distilled" and run.likelihood.not_distilled:
        raise ValueError(run.likelihood.not_distilled)
    found = chosen(run, run_dir, choice)
    mask, origin, beside = found.mask, found.origin, {}
    inputs, targets = run.evaluation_split
    dense = without_noise(run.model(choice.chain).cpu(), run)[0].eval()
    network = masked_network(run.model(choice.chain), found.mean(), mask, run.statistics_batches())
    if choice.network == "distilled":
        beside = {f"mean of {len(found.last)} draws": _scores(run, network, inputs, targets), **found.together(run)}
        origin = f"{origin}, {found.distil(network, run, choice.epochs)}"
    plain, noise = without_noise(network, run)
    if plain is not network:
        mask = {name.removeprefix("network."): kept for name, kept in mask.items()}
    small, obstacle = _cut(plain, mask, data.train[0][:2])
    if obstacle:
        origin = f"{origin}; masked, not cut: {obstacle}"
    about = _about(run, origin, noise)
    with TemporaryDirectory() as folder:  # before the file, which stays away if its format cannot be written
        alike = _written(Path(folder) / f"dense{out.suffix}", dense, about, run)
    read = _written(out, small, about, run)
    scores = _scores(run, _completed(run, read, noise), inputs.cpu(), targets.cpu())
    example = data.train[0][: max(BATCHES)].cpu()
    return {
        "origin": origin,
        "notes": found.notes,
        "inputs": inputs_in_words(about),
        "outputs": _outputs_in_words(about),
        "timed": f"ms: a pass of either network, both read from {out.suffix} files",
        "not_cut": obstacle + _why_no_unit(config.prior.group) * (obstacle == NO_UNIT) or None,
        "split": config.evaluate,
        "scores": scores,
        "beside": beside,
        "scored_in": " in standard deviations of the targets" if about.each_target[0] else "",
        "dense": _size(dense, example[:1]),
        "pruned": _size(small.cpu(), example[:1]),
        "latency": {batch: latency(alike, read, example[:batch], rounds) for batch in BATCHES},
        "bytes": out.stat().st_size,
    }


def _check_format(out: Path) -> None:
    """ValueError unless a network can be written to this path here."""
    if out.suffix.lower() in PROGRAMS:
        require_program(out)
    elif out.suffix.lower() != ".safetensors":
        raise ValueError(f"{out}: its ending is no format; name it {out.stem}.safetensors, .pt2 or .onnx")
    require_file(out)


def _written(out: Path, network: nn.Module, about: About, run: Run) -> nn.Module:
    """The network as it is read from the file that it was written to; ValueError if its outputs are others there."""
    if out.suffix.lower() not in PROGRAMS:
        save_network(out, network, about)
        return load_network(out, choices.load("network", run.config.model.name))[0]
    network, example = copy.deepcopy(network).cpu().eval(), run.data.train[0][:8].cpu()
    write_program(out, network, about, example.dtype)
    read, _ = read_program(out)
    expected, found = network(example[:3]), read(example[:3])
    if not torch.allclose(found, expected, rtol=1e-4, atol=1e-5):
        off = float((found - expected).abs().max())
        out.unlink()
        raise ValueError(
            f"written as {out.suffix}, the network has outputs that differ by {off:.2g}; write .safetensors"
        )
    return read


def without_noise(network: nn.Module, run: Run) -> tuple[nn.Module, tuple[float, ...]]:
    """The network that gives means, and the standard deviations of the targets, in the network's unit, if it has any.

    A noise that is sampled with the weights is no part of the file's network: who loads it gets the mean.
    """
    if isinstance(network, LearnedNoise):
        return network.network, tuple(network.log_noise.exp().tolist())
    known = run.likelihood.noise if isinstance(run.likelihood, Gaussian) else None
    return network, (known,) * run.data.dataset.target_width if isinstance(known, float) else ()


def inputs_in_words(about: About) -> str:
    """What the file's network must be given, which the file says as "about", too."""
    if about.features[0]:
        named = f"{_listed(about.columns)}: " if about.columns else ""
        return (
            f"inputs: {named}(x - centre) / scale of each feature, the pair `features` in what the file says "
            '"about" itself'
        )
    if (about.mean, about.std) == ((0.0,), (1.0,)):
        return "inputs: as the data set gives them; the run has not normalised them"
    mean, std = (", ".join(f"{value:.4g}" for value in moment) for moment in (about.mean, about.std))
    return f"inputs: (x - mean) / std of each channel, for x in [0, 1]; mean {mean}, std {std}"


def _outputs_in_words(about: About) -> str:
    """Classes or targets by name, where they have names, and what outputs are in the targets' units, if not that."""
    lines = []
    if about.classes:
        lines.append(f"outputs: {_listed(about.classes)}")
    elif about.target_names:
        lines.append(f"targets: {_listed(about.target_names)}")
    if about.each_target[0]:
        found = "unit * output + centre of each target, the pair `each_target`"
    else:
        found = "unit * output + centre, the pair `targets`" if about.targets != (0.0, 1.0) else ""
    if found:
        lines.append(f'outputs in the unit of the targets: {found} (centre, unit) in "about"')
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    """Names in their order; of many the first, as the file has them all."""
    rest = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + rest


def _about(run: Run, origin: str, noise: tuple[float, ...]) -> About:
    dataset, m = run.data.dataset, run.config.model
    mean, std = (tuple(float(v) for v in moment) for moment in (dataset.mean, dataset.std))
    return About(
        m.name,
        m.normalisation,
        run.data.input_shape,
        run.likelihood.num_network_outputs(dataset.target_width),
        mean,
        std,
        origin,
        m.options,
        run.config.likelihood,
        (dataset.input_centre, dataset.input_scale),
        (dataset.centre, dataset.unit),
        noise,
        (dataset.centres, dataset.units),
        dataset.classes,
        dataset.columns,
        dataset.target_names,
    )


def _completed(run: Run, network: nn.Module, noise: tuple[float, ...]) -> nn.Module:
    """A network of the file, with the noise that the file says beside it."""
    whole = run.likelihood.completed(network, run.data.dataset.target_width).eval()
    if isinstance(whole, LearnedNoise):
        with torch.no_grad():
            whole.log_noise.copy_(torch.tensor(noise).log())
    return whole


def _scores(run: Run, network: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, float]:
    """What a network scores, by the headings."""
    prediction = run.likelihood.prediction(outputs_of(network, inputs))
    single = run.likelihood.score_single(prediction, targets, run.data.dataset.unit)
    return {run.likelihood.headings[key]: value for key, value in single.items()}


def _cut(network: nn.Module, mask: masks.Mask, inputs: Tensor) -> tuple[nn.Module, str]:
    """The network without its superfluous nodes; where that cannot be done the masked network itself, and why."""
    try:
        shrunk = shrink(network, mask, inputs)
    except (TypeError, ValueError) as error:
        return network, str(error)
    return shrunk.model, "" if shrunk.kept else NO_UNIT


def _why_no_unit(group: str) -> str:
    """What it takes to remove one, and how a run comes by it."""
    way = "; --prior.group node, filter or head prunes whole units" if group == "weight" else ""
    return f" (a unit goes where its mask leaves it constant, or where nothing reads it{way})"


def table(result: dict[str, Any]) -> str:
    """The result as aligned text."""
    header = ("", "parameters", "multiply-adds", *(f"ms for {batch}" for batch in BATCHES))
    rows = [
        [
            name,
            *("-" if (n := result[name][size]) is None else f"{n:,}" for size in ("parameters", "multiply_adds")),
            *(number(result["latency"][batch][name], 3) for batch in BATCHES),
        ]
        for name in ("dense", "pruned")
    ]
    ratios = [str(timing.Ratio(**result["latency"][batch]["ratio"])) for batch in BATCHES]
    pairs = [(result["pruned"][size], result["dense"][size]) for size in ("parameters", "multiply_adds")]
    sizes = ["-" if after is None or before is None else f"{after / before:.3f}" for after, before in pairs]
    scores = f"{_in_words(result['scores'])}{result['scored_in']} on the {result['split']} split"
    scores += "".join(f"\n{name}: {_in_words(found)}" for name, found in result["beside"].items())
    if result["not_cut"]:  # as large as the dense one: no ratio is a speed-up
        note = f"\nThe network is as large as the dense one, with zeros in place: {result['not_cut']}"
        text = format_rows(header, rows) + note
    else:
        text = format_rows(header, [*rows, ["pruned / dense [95 %]", *sizes, *ratios]])
    about = (
        "multiply-adds: for one input, those of weights that are zero included",
        result["timed"],
        result["inputs"],
        result["outputs"],
    )
    lines = [line for line in about if line]
    return "\n".join([f"{result['origin']}: {scores}", *result["notes"], "", text, "", *lines])


def _in_words(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {number(value, 4)}" for name, value in scores.items())


def _size(model: nn.Module, example: Tensor) -> dict[str, int | None]:
    return {"parameters": num_parameters(model), "multiply_adds": multiply_adds(model, example)}


def latency(dense: nn.Module, pruned: nn.Module, inputs: Tensor, rounds: int = 31) -> dict[str, Any]:
    """Milliseconds of a pass of either network over some inputs, measured in turns.

    Returns
    -------
    dict
        Medians `dense` and `pruned`, and their paired `ratio` with its 95 % interval.
    """

    def passes(model: nn.Module, steps: int) -> Callable[[], None]:
        return timing.block(torch.no_grad()(partial(model, inputs)), steps)

    (one,) = timing.interleaved({"dense": passes(dense, 1)}, 1, progress=False)["dense"]
    steps = max(1, min(256, int(SECONDS_OF_A_BLOCK / one)))  # on a busy machine a pass may take a hundred times longer

    seconds = timing.interleaved(
        {"dense": passes(dense, steps), "pruned": passes(pruned, steps)}, rounds, progress=False
    )
    found: dict[str, Any] = {name: 1e3 * sorted(each)[len(each) // 2] / steps for name, each in seconds.items()}
    return {**found, "ratio": vars(timing.paired_ratio(seconds["pruned"], seconds["dense"]))}
