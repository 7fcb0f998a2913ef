"""From the stored draws to the table: dense, pruned post hoc, pruned in the chain, each as a posterior predictive.

Every chain predicts under its own mask, and chains are pooled in function space only. This is the one place where the
test split is read.

Where a network has batch normalisation, its statistics are re-estimated for every draw, dense or masked: those that a
chain carries along are averages over its past weights, and fit no draw. The inputs are those that training saw,
augmented as they were; plain images have other statistics than crops with black borders. That costs
`run.STATISTICS_BATCHES` forward passes a draw. All passes are in the precision of the chains' own.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sgmcmc_prune.chains.forward import in_precision, widened
from sgmcmc_prune.criteria.base import make_criterion
from sgmcmc_prune.data import Dataset, ood
from sgmcmc_prune.diagnostics import in_function_space, judge
from sgmcmc_prune.likelihoods import Gaussian, ObservationModel, Prediction
from sgmcmc_prune.likelihoods.base import scores_of
from sgmcmc_prune.likelihoods.gaussian import LearnedNoise
from sgmcmc_prune.machine.progress import bar as progress_bar
from sgmcmc_prune.models import num_parameters
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.predictive.flops import multiply_adds
from sgmcmc_prune.predictive.intervals import half_widths, paired_half_widths
from sgmcmc_prune.predictive.metrics import auroc, reliability
from sgmcmc_prune.predictive.predict import Predictive, one_by_one_is_an_error, outputs_of, outputs_of_draws
from sgmcmc_prune.pruning import batchnorm, masks
from sgmcmc_prune.pruning.masked import put_on
from sgmcmc_prune.pruning.shrink import shrink, why_not_shrinkable
from sgmcmc_prune.run.conditional import take_conditional
from sgmcmc_prune.run.config import RunConfig, pruned_of
from sgmcmc_prune.run.decide import asked_post_hoc, decided_post_hoc, inclusion_errors, num_decided, num_groups
from sgmcmc_prune.run.directory import StoredAverages, evaluation_settings
from sgmcmc_prune.run.rows import Rows
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.store.damage import damage_named
from sgmcmc_prune.store.files import finite_or_null, read_json, write_json
from sgmcmc_prune.store.places import RunPlaces, StagePlaces
from sgmcmc_prune.store.weights import WeightStore

Mask = dict[str, Tensor]
#: Weights that an evaluation keeps in memory.
KEPT_BYTES = 2**27
#: Draws of a small network, of at most so many numbers, that share a pass.
DRAWS_AT_ONCE, SMALL = 50, 10_000
#: Bins of the histogram of the probability integral transform.
PIT_BINS = 20
#: Relative differences of a score below this are rounding.
AGREE = 1e-6


@dataclass(frozen=True)
class _Predictions:
    """What the draws of one row predict: the scores of each, and all together on the split and on foreign images."""

    pooled: Prediction
    singles: list[dict[str, float]]
    foreign: Prediction | None
    sizes: list[dict[str, int | None]]


class Predictor:
    """What the draws of a run predict for inputs; those of small networks share a pass.

    Parameters
    ----------
    run : Run

    Attributes
    ----------
    network : nn.Module
        With the weights of the last draw, and under its mask.
    """

    def __init__(self, run: Run) -> None:
        self.likelihood, self.statistics_batches = run.likelihood, run.statistics_batches()
        self.network = run.model(0)
        self.passes = partial(in_precision, torch.device(run.config.device), run.config.precision)
        together = run.config.precision == "float32" and batchable(self.network, run.data.train[0][:4])
        self.at_once = DRAWS_AT_ONCE if together else 1

    def each(
        self, draws: Iterable[dict[str, Tensor]], mask: Mask, splits: Sequence[Tensor], size: int | None = None
    ) -> Iterator[list[Prediction]]:
        """What each draw predicts under a mask for some inputs, `size` examples at a time (see `outputs_of`)."""
        for outputs in self.outputs(draws, mask, splits, size):
            yield [self.likelihood.prediction(found) for found in outputs]

    def outputs(
        self, draws: Iterable[dict[str, Tensor]], mask: Mask, splits: Sequence[Tensor], size: int | None = None
    ) -> Iterator[tuple[Tensor, ...]]:
        """The network's outputs of the same, shape (example, output)."""
        remaining = iter(draws)
        while together := list(islice(remaining, self.at_once)):
            with self.passes():
                outputs = self._outputs(together, mask, splits, size)
            yield from zip(*outputs, strict=True)

    def _outputs(
        self, together: list[dict[str, Tensor]], mask: Mask, splits: Sequence[Tensor], size: int | None
    ) -> list[Tensor]:
        """Of some draws that share a pass, for each of the inputs: (draw, example, output)."""
        put_on(self.network, together[-1], mask, self.statistics_batches)
        if self.at_once > 1:
            return [outputs_of_draws(self.network, together, inputs, mask, size) for inputs in splits]
        return [widened(outputs_of(self.network, inputs, size)).unsqueeze(0) for inputs in splits]

    def pooled(
        self,
        chains: Iterable[Iterable[dict[str, Tensor]]],
        chain_masks: Iterable[Mask],
        inputs: Tensor,
        size: int | None,
    ) -> Prediction:
        """What the draws of all chains predict together, each chain under its own mask."""
        found = None
        for draws, mask in zip(chains, chain_masks, strict=True):
            for (latest,) in self.each(draws, mask, [inputs], size):
                found = _with(found, latest)
        assert found is not None, "a run has a draw"
        return found


class Evaluator:
    """Predicts on one split with the draws of a stage."""

    def __init__(self, run: Run) -> None:
        self.config = run.config
        self.inputs, self.labels = run.evaluation_split
        self.foreign = foreign_inputs(run)
        self.likelihood, self.unit = run.likelihood, run.data.dataset.unit
        self.predictor = Predictor(run)
        self.model = self.predictor.network
        self.groups = run.groups(self.model)
        self.not_shrinkable = why_not_shrinkable(self.model, self.inputs[:2])
        self._kept: dict[tuple[Path, int, int], dict[str, Tensor]] = {}
        self._room = KEPT_BYTES

    def predict(self, stage: StagePlaces, first: int, last: int, chain_masks: Sequence[Mask] | None) -> _Predictions:
        """Predict with the draws first, ..., last - 1 of every chain, one after the other."""
        weights = WeightStore(stage.draws)
        singles: list[dict[str, float]] = []
        sizes: list[dict[str, int | None]] = []
        pooled, foreign = None, None
        for chain in range(self.config.chains):
            mask = chain_masks[chain] if chain_masks else {}
            draws = (self._weights(weights, chain, draw) for draw in range(first, last))
            splits = [self.inputs, *([] if self.foreign is None else [self.foreign])]
            for latest, *others in self.predictor.each(draws, mask, splits):
                singles.append(self.likelihood.score_single(latest, self.labels, self.unit))
                pooled = _with(pooled, latest)
                foreign = _with(foreign, others[0]) if others else None
            sizes += self._size(mask)
        assert pooled is not None, "a run has a draw"
        return _Predictions(pooled, singles, foreign, sizes)

    def _weights(self, store: WeightStore, chain: int, draw: int) -> dict[str, Tensor]:
        """One draw; those of small networks are kept, since every row needs them again."""
        place = (store.directory, chain, draw)
        if place in self._kept:
            return self._kept[place]
        weights = store.load(chain, draw)
        size = sum(value.nbytes for value in weights.values())
        if self._room >= size:
            self._kept[place], self._room = weights, self._room - size
        return weights

    def _size(self, mask: Mask) -> list[dict[str, int | None]]:
        """The size of the last draw's network once it is cut; nothing where it cannot be, and from then on."""
        if not self.not_shrinkable:
            try:
                return [physical_size(self.model, mask, self.inputs[:2])]
            except ValueError as error:
                self.not_shrinkable = str(error)
        return []

    def _score(self, prediction: Prediction) -> dict[str, Any]:
        """The scores, what each example adds to them, and half of the 95 % interval of each.

        A score that is not what its examples add up to, as of a subclass that overrides `score` alone, has no interval.
        """
        scores = self.likelihood.score(prediction, self.labels, self.unit)
        each = self.likelihood.each(prediction, self.labels, self.unit)
        added = {key: torch.as_tensor(values).double() for key, values in each.items() if key in scores}
        agree = {key: math.isclose(value, scores[key], rel_tol=AGREE) for key, value in scores_of(added).items()}
        terms = {key: values.tolist() for key, values in added.items() if agree[key]}
        return {**scores, "each": terms, "half_width": half_widths(terms)}

    def rmse_by_target(self, prediction: Prediction, dataset: Dataset) -> dict[str, float]:
        """Of several targets that were standardised, each in its own unit, by name; of others nothing."""
        if not dataset.units:
            return {}
        errors = (self.likelihood.expected_target(prediction) - self.labels).square().mean(0).sqrt()
        names = dataset.provenance.get("targets", range(len(dataset.units)))
        return {str(n): u * e for n, u, e in zip(names, dataset.units, errors.tolist(), strict=True)}

    def row(self, found: _Predictions, chain_masks: Sequence[Mask] | None, **labels: Any) -> dict[str, Any]:
        """Metrics of the pooled predictive, of the average single network, and the size of the shrunk one."""
        each = chain_masks or [{}]
        row = {
            **labels,
            "sparsity": _mean([masks.sparsity(m) for m in each]),
            "sparsity_all_parameters": _mean([masks.total_sparsity(m, self.model) for m in each]),
            "starved": masks.starved_anywhere(each),
            **self._score(found.pooled),
            "members": found.pooled.members,
            **{f"single_{key}": _mean([s[key] for s in found.singles]) for key in found.singles[0]},
        }
        if isinstance(found.foreign, Predictive) and isinstance(found.pooled, Predictive):
            row |= detection(found.pooled, found.foreign)
        if len(found.sizes) == self.config.chains:
            row |= {key: _mean_if_known([size[key] for size in found.sizes]) for key in found.sizes[0]}
        return row


def held_out_losses(run: Run) -> Callable[[int, Mask], Tensor]:
    """A chain and a mask to the losses of the chain's dense draws on the validation examples, (draws, examples)."""
    weights, count = WeightStore(run.places.draws), run.config.schedule.num_draws
    predictor = cache(lambda: Predictor(run))  # which no decision may need, and a loss budget for every mask

    def losses(chain: int, mask: Mask) -> Tensor:
        inputs, targets = run.data.validation
        draws = (weights.load(chain, draw) for draw in range(count))
        found = predictor().outputs(draws, mask, [inputs])
        return torch.stack([run.likelihood(outputs, targets).double() for (outputs,) in found])

    return losses


def batchable(network: nn.Module, inputs: Tensor) -> bool:
    """Whether a network is small, and draws of it can share a pass, which is found by trying."""
    state = network_state(network)
    if sum(value.numel() for value in state.values()) > SMALL or batchnorm.layers(network):
        return False
    try:
        with one_by_one_is_an_error():
            together = outputs_of_draws(network, [state, state], inputs)
    except (RuntimeError, ValueError, UserWarning):
        return False
    return bool(torch.allclose(together[1], outputs_of(network, inputs), rtol=1e-5, atol=1e-6))


def _with(total: Any, latest: Prediction) -> Prediction:
    """One member more; class probabilities are averaged as they come, so that memory does not grow with members."""
    pooled: Prediction = latest if total is None else total.pooled(latest)
    return pooled


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _mean_if_known(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if len(known) == len(values) else None


def foreign_inputs(run: Run) -> Tensor | None:
    """Inputs that should look foreign, if the configuration names any; ValueError if they cannot be read."""
    config, data = run.config, run.data
    if config.ood is None:
        return None
    if run.likelihood.targets != "labels":
        raise ValueError("ood needs class probabilities, and this run's targets are numbers")
    inputs: Tensor = ood.foreign_inputs(config.ood, config.ood_dir, data.dataset, data.input_shape, config.device)
    return inputs


def detection(native: Predictive, foreign: Predictive) -> dict[str, float]:
    """How well uncertainty tells foreign images from native ones, as AUROC: 1 is perfect, 1/2 is chance.

    The entropy of the prediction counts all uncertainty, the mutual information only disagreement between members.
    """
    entropies = (torch.special.entr(p.probabilities).sum(1) for p in (native, foreign))
    return {
        "ood_auroc": auroc(*entropies),
        "ood_auroc_mutual_information": auroc(native.mutual_information, foreign.mutual_information),
    }


def physical_size(model: nn.Module, mask: Mask, example: Tensor) -> dict[str, int | None]:
    """Parameters, and multiply-adds of one input (if they are known), of a network with superfluous nodes cut out.

    A learned noise is no part of the network.
    """
    small = shrink(model, mask, example).model
    small = small.network if isinstance(small, LearnedNoise) else small
    return {"parameters": num_parameters(small), "multiply_adds": multiply_adds(small, example)}


def evaluate(run: Run, progress: bool = True) -> dict[str, Any]:
    """Compute everything that `metrics.json` holds, from the run directory.

    Returns
    -------
    dict
        `dense` (a row), `pruned` (rows with criterion, when, decision, target, sparsity, accuracy, nll, brier, ece,
        members, gradient_evaluations, parameters and multiply_adds of the shrunk network, ood_auroc, ...), `control`
        (rows, if the run has one), `diagnostics`, `split`, `examples` (of that split), `seed`, `ood`, and
        `not_shrinkable`: why rows have no such sizes, or "".
    """
    config = run.config
    found = tables(run, progress)
    return {
        **found,
        "diagnostics": {
            **_diagnostics(config, run.places),
            "inclusion": inclusion_errors(StoredAverages(run.places, config.chains))
            if config.prior.mode != "em"
            else {},
        },
    }


def tables(run: Run, progress: bool = True, rank: int = 0, size: int = 1) -> dict[str, Any]:
    """What `evaluate` gives but the diagnostics, which alone need the Zarr store.

    Of several processes each computes its share of the rows and leaves them in the run's directory (rows whose draws
    are moved first excepted); one that calls this afterwards, with a size of 1, gets them all.
    """
    config, data, places, evaluator = run.config, run.data, run.places, Evaluator(run)
    settings = {**evaluation_settings(config), "precision": config.precision, "draws": _drawn(run)}
    rows = Rows(places.rows, settings, rank, size)
    with progress_bar(_num_rows(config), "row", desc="evaluate", disable=not progress) as bar:
        dense = _take(rows, evaluator, "dense", lambda: _dense_row(run, evaluator))
        bar.update(1)
        pruned = [*_post_hoc(run, evaluator, rows, bar), *_stages(run, evaluator, rows, bar)]
        control = _control(run, evaluator, rows, bar) if config.control else []
    by_target = dense.pop("rmse_by_target", {})
    mean = compare_with_mean(run, dense)
    pair_with_dense(dense, [*pruned, *control])
    return {
        "split": config.evaluate,
        "examples": len(evaluator.labels),
        "pruned_of": pruned_of(run.config),
        "scores": dict(run.likelihood.headings),
        "higher_is_better": run.likelihood.higher_is_better,
        "seed": config.seed,
        "evaluation": evaluation_settings(config),
        "data": data.dataset.origin,
        "ood": " in ".join(str(part) for part in (config.ood, config.ood_dir) if part is not None),
        "not_shrinkable": evaluator.not_shrinkable,
        **({"rmse_by_target": by_target} if by_target else {}),
        **({"mean_of_targets": mean} if mean else {}),
        "dense": dense,
        "pruned": pruned,
        **({"control": control} if control else {}),
    }


def pair_with_dense(dense: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Give every row half of the 95 % interval of its difference from the dense one; what each example adds goes."""
    reference = dense.pop("each", {})
    for row in rows:
        row["paired"] = paired_half_widths(row.pop("each", {}), reference)


def compare_with_mean(run: Run, dense: Mapping[str, Any]) -> dict[str, float]:
    """RMSE of the constant mean of the training targets, and its paired interval beside the dense row's; of numbers."""
    if "rmse" not in dense.get("each", {}):
        return {}
    train, split = (y.double().reshape(len(y), -1) for y in (run.data.train[1], run.evaluation_split[1]))
    errors = run.data.dataset.unit**2 * (split - train.mean(0)).square().mean(1)
    paired = paired_half_widths(dense["each"], {"rmse": errors.tolist()})
    return {**scores_of({"rmse": errors}), "paired": paired["rmse"]}


def _drawn(run: Run) -> str:
    """What tells the files of a run's draws and masks from others: names, sizes and times."""
    stages = [*map(run.places.stage, run.stages), run.places.control]
    folders = (folder for stage in stages for folder in (stage.draws, stage.masks))
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    found = [(str(p.relative_to(run.places.directory)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _take(rows: Rows, evaluator: Evaluator, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row, kept with the reason for which networks are not cut from there on."""
    row = rows.take(name, lambda: {**compute(), "not_shrinkable": evaluator.not_shrinkable})
    evaluator.not_shrinkable = row.pop("not_shrinkable", "") or evaluator.not_shrinkable
    return row


def _num_rows(config: RunConfig) -> int:
    """Rows of the whole table."""
    count = 1 + num_decided(config) + len(config.prune.in_chain) * len(config.prune.targets)
    return count + (1 + len(config.prune.targets) * bool(config.prune.in_chain) if config.control else 0)


def _dense_row(run: Run, evaluator: Evaluator) -> dict[str, Any]:
    """The row of all dense draws; its calibration goes to a file of its own."""
    found = evaluator.predict(run.places, 0, run.config.schedule.num_draws, None)
    _write_reliability(run.places.reliability, run.likelihood, found.pooled, evaluator.labels)
    by_target = evaluator.rmse_by_target(found.pooled, run.data.dataset)
    return {
        **evaluator.row(found, None, gradient_evaluations=run.gradient_evaluations()),
        **({"rmse_by_target": by_target} if by_target else {}),
    }


def _post_hoc(run: Run, evaluator: Evaluator, rows: Rows, bar: Any) -> Iterator[dict[str, Any]]:
    """The rows of masks on the dense draws; masks are made of those alone that this process has yet to compute."""
    asked = {f"post_hoc{i}": one for i, one in enumerate(asked_post_hoc(run.config))}
    missing = rows.missing(list(asked))
    bar.set_postfix_str("masks" if missing else "")
    chains, wanted = StoredAverages(run.places, run.config.chains), [asked[name] for name in missing]
    found = decided_post_hoc(run.config, evaluator.groups, chains, held_out_losses(run), wanted)
    decided = dict(zip(missing, found, strict=True))
    bar.set_postfix_str("")

    def row(name: str) -> dict[str, Any]:
        chain_masks = decided[name].masks
        labels = {"when": "post_hoc", **decided[name].labels, "gradient_evaluations": run.gradient_evaluations()}
        predicted = evaluator.predict(run.places, 0, run.config.schedule.num_draws, chain_masks)
        return evaluator.row(predicted, chain_masks, **labels)

    for name in asked:
        yield _take(rows, evaluator, name, partial(row, name))
        bar.update(1)


def _stages(run: Run, evaluator: Evaluator, rows: Rows, bar: Any) -> Iterator[dict[str, Any]]:
    """The rows of draws that a mask has moved, post hoc or in the chain."""
    config = run.config
    moving = [] if rows.shared else [name for name in config.prune.post_hoc if make_criterion(name).moves]
    for criterion in moving:
        take_conditional(run, run.places.stage(criterion))
    forks = [(name, "post_hoc", config.schedule.num_draws) for name in moving]
    forks += [(name, "in_chain", config.prune.num_draws) for name in config.prune.in_chain]
    for (criterion, when, n), k in product(forks, range(len(config.prune.targets))):
        spent = run.gradient_evaluations(k + 1 if when == "in_chain" else 0)
        labels = {"criterion": criterion, "when": when, "gradient_evaluations": spent}
        row = partial(stage_row, evaluator, run.places.stage(criterion), k, n, **labels)
        yield _take(rows, evaluator, f"{when}_{criterion}{k}", row)
        bar.update(1)


def _control(run: Run, evaluator: Evaluator, rows: Rows, bar: Any) -> list[dict[str, Any]]:
    """The rows of the control: dense, and at every target; what each took is what its networks counted."""
    config, places = run.config, run.places
    spent = [read_json(places.control_cost(chain), checksum=True)["stages"] for chain in range(config.chains)]
    found = []
    for stage, target in enumerate((None, *(config.prune.targets if config.prune.in_chain else ()))):

        def row(stage: int = stage, target: float | None = target) -> dict[str, Any]:
            labels: dict[str, Any] = {"criterion": config.control, "when": "control", "decision": "none"}
            labels |= {"gradient_evaluations": sum(one[stage]["gradient_evaluations"] for one in spent)}
            chain_masks = None
            if target is not None:
                chain_masks = [masks.load(places.control.mask(c, target)) for c in range(config.chains)]
                labels |= {"decision": "target", "target": target}
            predicted = evaluator.predict(places.control, stage, stage + 1, chain_masks)
            return evaluator.row(predicted, chain_masks, **labels)

        found.append(_take(rows, evaluator, f"control{stage}", row))
        bar.update(1)
    return found


def stage_row(evaluator: Evaluator, stage: StagePlaces, k: int, draws: int, **labels: Any) -> dict[str, Any]:
    """The row of a stage's target number k, which has masks and so many draws of its own."""
    config = evaluator.config
    target = config.prune.targets[k]
    paths = [stage.mask(c, target) for c in range(config.chains)]
    chain_masks = [masks.load(path) for path in paths]
    tied = _mean([masks.load_tied(path) for path in paths]) / num_groups(evaluator.groups)
    found = evaluator.predict(stage, k * draws, (k + 1) * draws, chain_masks)
    return evaluator.row(found, chain_masks, **labels, decision="target", target=target, tied=tied)


def _write_reliability(path: Path, likelihood: ObservationModel, predicted: Prediction, targets: Tensor) -> None:
    """Keep the bins that show the dense calibration, which a report cannot recompute without the data.

    Of classes those of the reliability diagram; of numbers the histogram of the probability integral transform.
    """
    content: dict[str, list[float]]
    if isinstance(predicted, Predictive):
        bins = reliability(predicted.probabilities, targets)
        content = {name: getattr(bins, name).tolist() for name in ("confidence", "accuracy", "count")}
    elif isinstance(likelihood, Gaussian):
        content = {"pit": torch.histc(likelihood.pit(predicted, targets), PIT_BINS, 0, 1).tolist()}
    else:
        return
    write_json(path, finite_or_null(content), checksum=True)


def _diagnostics(config: RunConfig, places: RunPlaces) -> dict[str, Any]:
    with damage_named(places.store):
        return diagnostics(config, places.directory)


def diagnostics(config: RunConfig, out: Path) -> dict[str, Any]:
    """Temperatures, convergence in function space and the hyperparameters, from the dense draws."""
    # xarray is imported in there, because compute machines often lack it.
    from sgmcmc_prune.diagnostics.inference_data import hyperparameters, load

    tree = load(out)
    stats, posterior = tree["sample_stats"].to_dataset(), tree["posterior"].to_dataset()
    layers = [str(name) for name in posterior["layer"].values]
    by_layer = {
        name: dict(zip(layers, posterior[name].mean(("chain", "draw")).values.tolist(), strict=True))
        for name in hyperparameters(posterior)
    }
    return {
        "draws_per_chain": int(stats.sizes["draw"]),
        "chains": config.chains,
        "kinetic_temperature": float(stats["kinetic_temperature"].mean()),
        "configurational_temperature": float(stats["configurational_temperature"].mean()),
        "temperature": temperature_verdict(config, tree),
        **in_function_space(out),
        "hyperparameters": by_layer,
    }


def temperature_verdict(config: RunConfig, tree: Any) -> dict[str, Any]:
    """Judge the temperatures in a store; a batch is a cycle, or, in a chain of one cycle, sqrt(draws) draws."""
    stats, draws = tree["sample_stats"].to_dataset(), tree["sample_stats"].sizes["draw"]
    names = [str(name) for name in stats["parameter"].values]
    return judge(
        stats["parameter_kinetic_temperature"].values.astype(float),
        stats["configurational_temperature"].values,
        dict(zip(names, tree["constant_data"]["parameter_size"].values.tolist(), strict=True)),
        stats["excess_temperature"].astype(float).mean(("chain", "draw")).values.tolist(),  # NaN is left out
        temperature=config.sampler.temperature,
        momentum=tree.attrs["momentum"],
        integrator=tree.attrs["integrator"],
        batches=config.schedule.cycles if config.schedule.cycles > 1 else math.isqrt(draws),
    )
