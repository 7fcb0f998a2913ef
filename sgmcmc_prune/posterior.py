"""A finished run as its user sees it: draws, diagnostics, inclusion probabilities, predictions, pruned networks.

`sample` returns it, and `open_posterior` opens what the command line has left.
"""

import hashlib
import json
import shutil
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sgmcmc_prune import choices
from sgmcmc_prune.chains.rehearsal import check_lookups
from sgmcmc_prune.criteria.base import make_criterion
from sgmcmc_prune.diagnostics import inference_data
from sgmcmc_prune.likelihoods.predicted import Predicted
from sgmcmc_prune.priors.spike_slab import SpikeSlab
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.masked import masked_network
from sgmcmc_prune.report import require_page, write_report
from sgmcmc_prune.run.conditional import check_conditional, take_conditional
from sgmcmc_prune.run.config import PruneConfig, pruned_of
from sgmcmc_prune.run.decide import asked_post_hoc, decided_post_hoc, inclusion_averages
from sgmcmc_prune.run.directory import StoredAverages, load_averages, load_prior, open_run
from sgmcmc_prune.run.evaluate import Evaluator, Predictor, held_out_losses, stage_row
from sgmcmc_prune.run.headline import headline, share, way
from sgmcmc_prune.run.probed import probed
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.run.stages import take_stage
from sgmcmc_prune.run.tables import diagnostics_lines, metrics_table
from sgmcmc_prune.settings import replace, to_json
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.places import StagePlaces
from sgmcmc_prune.store.weight_draws import Draws
from sgmcmc_prune.store.weights import WeightStore, average
from sgmcmc_prune.text_table import number

if TYPE_CHECKING:
    import pandas
    import xarray


@dataclass(frozen=True)
class Inclusion:
    """Inclusion probabilities of one layer.

    Attributes
    ----------
    probability : Tensor, shape (chains, groups)
        Average over the draws of p(gamma = 1 | w). Hidden units permute between chains: compare groups within a chain.
    standard_error : Tensor, shape (chains, groups)
        Of that average by batch means; NaN where there are too few batches.
    """

    probability: Tensor
    standard_error: Tensor


class Posterior:
    """The posterior of a network, as far as a run has drawn from it.

    Parameters
    ----------
    run : Run
        A finished one.
    temporary : bool
        Whether the run's directory goes with the object, and with whatever it has given.
    """

    def __init__(self, run: Run, temporary: bool = False) -> None:
        self.run, self._temporary = run, temporary
        if temporary:
            weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        self.chains = run.config.chains
        self.num_draws = run.config.schedule.num_draws

    def __repr__(self) -> str:
        """What was run, and where it is."""
        kept = "in a temporary directory" if self._temporary else f"in {self.run.out}"
        return f"<Posterior of {self.run.config.model.name}: {self.chains} chains x {self.num_draws} draws, {kept}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> "Posterior":
        """The posterior itself: its files are one."""
        return self

    def __reduce__(self) -> Any:
        """Refuse to be pickled."""
        raise TypeError("a Posterior is files on disk; keep it with sample(..., out=...)")

    def __str__(self) -> str:
        """The verdict, the table of the run, and whether its chains are healthy."""
        metrics = self.metrics
        return "\n".join([*headline(metrics), "", metrics_table(metrics), "", *diagnostics_lines(metrics)])

    @property
    def path(self) -> Path:
        """The run's directory."""
        return self.run.places.directory

    @property
    def metrics(self) -> dict[str, Any]:
        """What the run measured on its held-out examples: `dense`, `pruned`, `diagnostics`."""
        found: dict[str, Any] = read_json(self.run.places.metrics, checksum=True)
        return found

    @property
    def departures(self) -> list[str]:
        """Every way in which the draws are not draws from the stated posterior, in words."""
        found: list[str] = read_json(self.run.places.info, checksum=True)["departures"]
        return found

    @cached_property
    def draws(self) -> Draws:
        """All weight draws, chain after chain."""
        return Draws(WeightStore(self.run.places.draws), self.chains, 0, self.num_draws, self)

    def inference_data(self) -> "xarray.DataTree":
        """The draws' store as ArviZ reads it: posterior, log_likelihood, posterior_predictive and more.

        Lazy, unless the run is in a temporary directory. Targets are as the network sees them, standardised where the
        data set was.
        """
        tree = inference_data.load(self.path)
        return tree.load() if self._temporary else tree

    def summary(self, **options: Any) -> "pandas.DataFrame":
        """Mean, interval, effective sample size and R-hat by scalar.

        Parameters
        ----------
        **options
            `probes`, `variables` and `ci_prob` of `diagnostics.inference_data.summary`.

        Examples
        --------
        >>> list(posterior.summary(variables=["weight_norm"]).index)
        ['weight_norm[network.0.weight]', 'weight_norm[network.2.weight]']
        """
        return inference_data.summary(self.path, **options)

    def inclusion(self) -> dict[str, Inclusion]:
        """Inclusion probabilities of every sparse layer, with standard errors.

        A standard error comes from the spread of batches of draws, and is NaN under eight of them. A batch is a whole
        cycle, or, at constant step, longer than the autocorrelation time: a short or slowly mixing chain has too few.

        Returns
        -------
        dict of str to Inclusion
            By parameter name.

        Raises
        ------
        ValueError
            Without a spike-and-slab prior.

        Examples
        --------
        >>> posterior.inclusion()["network.0.weight"].probability.shape  # chains, weights
        torch.Size([2, 18])
        """
        averages = [inclusion_averages(load_averages(self.run.places, chain)) for chain in range(self.chains)]
        return {
            name: Inclusion(
                torch.stack([each[name].included for each in averages]),
                torch.stack([each[name].standard_error for each in averages]),
            )
            for name in averages[0]
        }

    def log_odds(self, chain: int = 0) -> dict[str, Tensor]:
        """Conditional log-odds of inclusion in every draw of a chain, by sparse layer: (draws, groups), float64.

        `pruning.joint_inclusion` makes co-inclusion and the most probable masks of them.

        Parameters
        ----------
        chain : int
            From 0 on.

        Raises
        ------
        ValueError
            Without a spike-and-slab prior, or in mode em, whose draws have no inclusion probabilities.
        """
        prior, config = load_prior(self.run, self.run.model(chain), chain), self.run.config
        if not isinstance(prior, SpikeSlab) or prior.mode == "em":
            raise ValueError("log-odds of inclusion need a spike-and-slab prior in mode marginal or gibbs")
        temperature = config.sampler.temperature
        draws = list(self.draws.of_chain(chain))
        return {name: torch.stack([prior.log_odds(name, d[name], temperature) for d in draws]) for name in prior.layers}

    def predict(self, inputs: Tensor, batch_size: int | None = None) -> Predicted:
        """The posterior predictive of new inputs, over all draws of all chains.

        Parameters
        ----------
        inputs : Tensor or array, shape (n, ...)
            In the units of the data: features of a table as in its file, what was given to `sample` as it was given.
        batch_size : int, optional
            Examples in a forward pass, by default what suits the device.

        Raises
        ------
        ValueError
            For inputs of another shape or kind than the network was sampled on.

        Examples
        --------
        >>> posterior.predict(x[:5]).mean.shape
        torch.Size([5, 1])
        """
        return _predict(self.run, self.draws, [{}] * self.chains, inputs, batch_size)

    def prune(
        self,
        target: float | str,
        *,
        in_chain: bool = False,
        criterion: str | None = None,
        schedule: PruneConfig | None = None,
        progress: bool = True,
    ) -> "Pruned":
        """Prune the posterior: mask its draws, or go on sampling while the mask grows.

        Parameters
        ----------
        target : float or str
            A sparsity in (0, 1), or a decision without one: "median" (the median probability model), "fdr", or your
            own as "package.module:function".
        in_chain : bool
            Let every chain go on from its end under a growing mask. That takes a sparsity.
        criterion : str, optional
            By default inclusion probability post hoc and expected log-odds in the chain, where the prior has
            indicators, and magnitude where it has none. What is returned says which one it was.
        schedule : PruneConfig, optional
            Lengths of the fork (`explore`, `sample`, `relax`, `draws`, `growth`) and the allocation. By default the
            run's own; those of `sample` go with the length of its schedule.
        progress : bool
            Show a progress bar.

        Raises
        ------
        ValueError
            If the target or the criterion does not fit the run.

        Examples
        --------
        >>> half = posterior.prune(0.5)
        >>> half  # doctest: +ELLIPSIS
        <Pruned post hoc, inclusion probability: 50 % of the weights pruned, RMSE ...>
        >>> half.predict(x[:5]).mean.shape, round(half.sparsity, 1)
        (torch.Size([5, 1]), 0.5)
        """
        config = self.run.config
        indicators = bool(load_averages(self.run.places, 0)["inclusion"])
        default = "expected_log_odds" if in_chain else "inclusion_probability"
        if config.prior.mode == "em" and not in_chain:
            default = "em_responsibility"
        criterion = criterion or (default if indicators else "magnitude")
        without = isinstance(target, str)
        if in_chain and without:
            raise ValueError(f"decision {target!r} is taken post hoc alone; in the chain give a sparsity")
        chosen = replace(
            config,
            prune=replace(
                schedule or config.prune,
                targets=() if without else (float(target),),
                decisions=(target,) if without else (),
                post_hoc=() if in_chain else (criterion,),
                in_chain=(criterion,) if in_chain else (),
            ),
        )
        if reason := make_criterion(criterion).refused(chosen):
            raise ValueError(reason)
        run = Run(chosen, self.run.out, self.run.data, self.run.network, self.run.likelihood)
        return _in_chain(self, run, progress) if in_chain else _post_hoc(self, run)

    def report(self, path: str | Path | None = None) -> Path:
        """Write figures and one self-contained page; give the page's path.

        Parameters
        ----------
        path : str or Path, optional
            Where the page is copied to, a name that ends in .html; by default it stays in the run's directory. A
            missing folder is made.

        Raises
        ------
        ValueError
            If the name has another ending.
        """
        place = None if path is None else require_page(Path(path))
        page = write_report(self.path)
        if place is None:
            return page
        place.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(page, place))


@dataclass(frozen=True)
class Pruned:
    """A pruned posterior: draws under one mask for each chain.

    Attributes
    ----------
    run : Run
    draws : Draws
    masks : list of dict of str to BoolTensor
        By chain; True is kept.
    scores : dict
        On the run's held-out examples: sparsity, the scores of the likelihood, half of the 95 % interval of each over
        examples (`half_width`), members, sizes, ties.
    """

    run: Run = field(repr=False)
    draws: Draws = field(repr=False)
    masks: list[dict[str, Tensor]] = field(repr=False)
    scores: dict[str, Any]

    def __repr__(self) -> str:
        """How it was pruned, criterion included, how much of it, and its first score."""
        first, heading = next(iter(self.run.likelihood.headings.items()))
        gone = f"{share(self.scores)} of the {pruned_of(self.run.config)} pruned"
        return f"<Pruned {way(self.scores)}: {gone}, {heading} {number(self.scores[first], 4)}>"

    @property
    def sparsity(self) -> float:
        """Share of the prunable weights that is gone, mean over chains."""
        return sum(masks.sparsity(mask) for mask in self.masks) / len(self.masks)

    def predict(self, inputs: Tensor, batch_size: int | None = None) -> Predicted:
        """The posterior predictive of new inputs, every chain under its own mask.

        Parameters
        ----------
        inputs, batch_size
            As of `Posterior.predict`.
        """
        return _predict(self.run, self.draws, self.masks, inputs, batch_size)

    def inference_data(self) -> "xarray.DataTree":
        """What the pruned draws say of the run's probes, for ArviZ: the same examples as those of the dense posterior.

        So `arviz.compare` takes both. Groups: `posterior` (the network's outputs), `log_likelihood`,
        `posterior_predictive`, `observed_data`; targets as the network sees them.
        """
        return probed(self.run, [list(self.draws.of_chain(c)) for c in range(self.draws.chains)], self.masks)

    def network(self, chain: int = 0) -> nn.Module:
        """One network: the mean of a chain's draws under its mask, in evaluation mode.

        Parameters
        ----------
        chain : int
            From 0 on; the masks of two chains are not the same.

        Examples
        --------
        >>> network = posterior.prune(0.5).network()
        >>> network(x[:5]).shape  # the mean, and the logarithm of the noise
        torch.Size([5, 2])
        """
        weights = average(self.draws.of_chain(chain))
        model = self.run.model(chain).cpu()
        return masked_network(model, weights, self.masks[chain], self.run.statistics_batches()).eval()


def open_posterior(path: str | Path) -> Posterior:
    """The posterior of a run directory that the command line has left.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    ValueError
        If it is none, or not finished, or was sampled from objects: then call `sample` with these again.

    Examples
    --------
    >>> open_posterior("runs/regression-seed0").metrics["dense"]["rmse"]  # doctest: +SKIP
    """
    run = open_run(Path(path).expanduser())
    if choices.is_given(run.config.model.name):
        raise ValueError(
            f"{path} was sampled from objects, which no file can hold; call sample with the same ones, and "
            f"out={str(path)!r}"
        )
    if not run.places.metrics.is_file():
        raise ValueError(f"{path} is not finished; go on with: sgmcmc-prune resume {path}")
    return Posterior(run)


def _predict(
    run: Run, draws: Draws, chain_masks: Sequence[masks.Mask], inputs: Tensor, batch_size: int | None
) -> Predicted:
    inputs = run.data.dataset.as_inputs(inputs).to(run.config.device)
    check_lookups(run.model(0), inputs, "inputs")
    chains = [draws.of_chain(chain) for chain in range(draws.chains)]
    found = Predictor(run).pooled(chains, chain_masks, inputs, batch_size)
    dataset = run.data.dataset
    if dataset.units:
        scales = (dataset.centres, dataset.units)
        centre, unit = (torch.tensor(part, dtype=torch.float64, device=run.config.device) for part in scales)
        return Predicted(run.likelihood, found, centre, unit)
    return Predicted(run.likelihood, found, dataset.centre, dataset.unit)


def _post_hoc(posterior: Posterior, run: Run) -> Pruned:
    if make_criterion(run.config.prune.post_hoc[0]).moves:
        return _moved(posterior, run)
    evaluator = Evaluator(run)
    if not (asked := asked_post_hoc(run.config)):
        chosen, target = run.config.prune.post_hoc[0], run.config.prune.decisions[0]
        raise ValueError(f"decision {target} needs inclusion probabilities, and criterion {chosen} has none")
    states = StoredAverages(run.places, posterior.chains)
    (decided,) = decided_post_hoc(run.config, evaluator.groups, states, held_out_losses(run), asked[:1])
    predicted = evaluator.predict(run.places, 0, posterior.num_draws, decided.masks)
    scores = evaluator.row(predicted, decided.masks, when="post_hoc", **decided.labels)
    del scores["each"]
    return Pruned(run, posterior.draws, list(decided.masks), scores)


def _moved(posterior: Posterior, run: Run) -> Pruned:
    """Prune and move every draw by joint evidence, into a directory of the fork's own."""
    criterion, targets = run.config.prune.post_hoc[0], run.config.prune.targets
    if not targets:
        raise ValueError(f"criterion {criterion} takes a sparsity, not decision {run.config.prune.decisions[0]!r}")
    check_conditional(run, run.model(0))
    stage = _fork(run, criterion)
    take_conditional(run, stage)
    return _of_fork(posterior, run, stage, posterior.num_draws, criterion, "post_hoc")


def _fork(run: Run, criterion: str) -> StagePlaces:
    """The place of a fork, which its settings name."""
    key = hashlib.sha256(json.dumps(to_json(run.config.prune), sort_keys=True).encode()).hexdigest()[:8]
    return run.places.stage(f"{criterion}-{run.config.prune.targets[0]:g}-{key}")


def _of_fork(posterior: Posterior, run: Run, stage: StagePlaces, draws: int, criterion: str, when: str) -> Pruned:
    target = run.config.prune.targets[0]
    chain_masks = [masks.load(stage.mask(chain, target)) for chain in range(posterior.chains)]
    scores = stage_row(Evaluator(run), stage, 0, draws, criterion=criterion, when=when)
    del scores["each"]
    return Pruned(run, Draws(WeightStore(stage.draws), posterior.chains, 0, draws, posterior), chain_masks, scores)


def _in_chain(posterior: Posterior, run: Run, progress: bool) -> Pruned:
    """Fork every chain from its dense end, in a directory of the fork's own."""
    criterion = run.config.prune.in_chain[0]
    if make_criterion(criterion).copies_layers:
        raise ValueError(f"criterion {criterion!r} copies the per-layer sparsity of another, and a fork has but one")
    if missing := [c for c in range(posterior.chains) if not run.places.checkpoint(c).is_file()]:
        raise ValueError(
            f"{posterior.path} has no resume point of chain {missing[0]}, from which a fork would start; give the "
            "criterion to the run itself, as prune.in_chain"
        )
    stage = _fork(run, criterion)
    take_stage(run, criterion, stage, progress)
    return _of_fork(posterior, run, stage, run.config.prune.num_draws, criterion, "in_chain")
