"""One call from a network and its data to the posterior: `sample`."""

import dataclasses
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sgmcmc_prune.data.examples import as_dataset, is_labels, require_finite
from sgmcmc_prune.data.handed import as_tensors, class_names
from sgmcmc_prune.data.seeding import seeded_generator
from sgmcmc_prune.likelihoods import Gaussian, Likelihood, ObservationModel, check_targets, observation_model
from sgmcmc_prune.models.state import copied
from sgmcmc_prune.posterior import Posterior
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.pruning.prunable import trainable
from sgmcmc_prune.run.checks import check_device
from sgmcmc_prune.run.config import DataConfig, ModelConfig, PriorConfig, RunConfig, SamplerConfig, ScheduleConfig
from sgmcmc_prune.run.data import likelihood as named_likelihood
from sgmcmc_prune.run.data import split_data
from sgmcmc_prune.run.defaults import (
    affordable_batch,
    default_prior,
    default_schedule,
    default_settings,
    stable_sampler,
)
from sgmcmc_prune.run.directory import load_config
from sgmcmc_prune.run.main import resume, start
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.run.stages import check_inputs, rehearsed
from sgmcmc_prune.settings import replace, require
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.places import RunPlaces

#: Lengths of the command `sample`, beside the default.
MOST_LENGTH = 1000
#: Targets with a standard deviation outside this range do not suit a learned noise's prior.
SCALES = (0.05, 20.0)


def sample(
    model: nn.Module | Callable[[], nn.Module],
    data: Any,
    *,
    likelihood: str | Likelihood,
    test: Any = None,
    holdout: float = 0.1,
    prior: PriorConfig | None = None,
    em: EMSettings | None = None,
    sampler: SamplerConfig | None = None,
    schedule: ScheduleConfig | None = None,
    batch_size: int | None = None,
    chains: int = 4,
    seed: int = 0,
    device: str = "cpu",
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Posterior:
    """Sample the posterior of a network.

    Parameters
    ----------
    model : nn.Module, or callable
        The network. Every chain gets a copy with a random start of its own, by the layers' `reset_parameters`: trained
        weights are not kept, frozen ones are. A callable without arguments makes the network anew for each chain.
    data : pair of tensors, Dataset or DataLoader
        All training examples, inputs (n, ...) and targets (n, ...). Inputs reach the network as float32, integers (as
        tokens are) as int64; images of type uint8, (n, channels, height, width), are normalised by channel. Targets of
        a Gaussian should be standardised.
    likelihood : str, ObservationModel or callable
        "categorical" (outputs are logits, targets class labels), "gaussian" (numbers, with a noise that is learned),
        "bernoulli" (0 or 1), "poisson" (counts, outputs are log-rates), an object such as `Gaussian(noise=0.1)`, or a
        function of outputs and targets that gives the negative log-likelihood of each example.
    test : pair of tensors, Dataset or DataLoader, optional
        Examples on which the tables are made.
    holdout : float
        Without `test`, the share of `data` that is held out for the tables, and not sampled from; which they are
        depends on the seed, so give `test` where runs with several seeds shall have the same probes.
    prior : PriorConfig, optional
        By default spike-and-slab on every weight, the slab with a variance of 2 over the smallest
        fan-in of a layer: one variance for all has to let the first layer move.
    em : EMSettings, optional
        How the burn-in learns the prior's hyperparameters, layer by layer. By default the prior stays as it is stated,
        which mixes best; `EMSettings()` learns how sparse each layer is.
    sampler : SamplerConfig, optional
        By default BAOAB at T = 1 with a step of a tenth of the stability limit near a mode and where a short chain goes
        from there, and with a lower friction where batches are full than with minibatches. Chains start near modes of
        their own, where a short training from their random starts ends (`chains.step_size`).
    schedule : ScheduleConfig, optional
        In epochs. By default 4,000 steps of burn-in, then 30,000 in which 250 draws are kept, of each chain; a fork of
        `Posterior.prune(in_chain=True)` then explores for 2,000 steps and samples for 1,000. With a schedule that is
        half as long the fork is half as long, too.
    batch_size : int, optional
        By default the loader's, or all examples up to 5,000, or (of up to 20,000) all that ten million multiply-adds of
        the network allow, which leaves no minibatch noise; above, as many as that, and 256 at least, and of tokens 256:
        then noise heats the chains, and the diagnostics say how much.
    chains : int
        Two or more tell whether they agree.
    seed : int
        The same seed gives the same draws.
    device : str
    out : path, optional
        The run's directory, for the command line's `report` and `summary`. Called again with an `out` that exists and
        the same network, data, likelihood and settings, `sample` goes on there. By default the run lives in a temporary
        directory, and goes with the object.
    overwrite : bool
        Delete the run in `out` first, if there is one.
    progress : bool
        Show progress bars.

    Returns
    -------
    Posterior
        `print` it for its table and diagnostics.

    Raises
    ------
    TypeError, ValueError
        For data, a network or a likelihood that do not fit, before anything is sampled.
    RunError
        If a chain diverges.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1))
    >>> posterior = sample(net, (x, y), likelihood="gaussian")  # doctest: +SKIP
    >>> posterior.prune(0.8).predict(x_new).mean  # doctest: +SKIP
    """
    _check_arguments(prior, em, sampler, schedule, seed)
    check_device(device)
    x, y, loader_batch = as_tensors(data)
    require_finite("data:", x, y)  # before examples are held out, which would number them anew
    observation = _observation(likelihood, y)
    positions = None
    if test is None:
        held = _held_out(x, y, holdout, seed)
        (test_x, test_y), positions = (x[held], y[held]), (~held).nonzero().flatten()
        x, y = x[~held], y[~held]
    else:
        test_x, test_y, _ = as_tensors(test, "test")
    dataset = as_dataset("given:data", ((x, y), (test_x, test_y)), observation.targets)
    classes = class_names(data, dataset.num_classes)
    dataset = dataclasses.replace(dataset, classes=classes, positions=positions)
    _check_scales(observation, x, dataset.train.labels)
    make_network = _network(model)
    network, example, count = make_network(0), dataset.as_inputs(x[:1]), len(x)
    size = _checked_batch(batch_size, count)
    if size is None:
        size = _chosen_batch(affordable_batch(network, example, count), loader_batch, count, progress)
    config = replace(
        default_settings(size, count, prior or default_prior(network), schedule),
        model=ModelConfig(name=f"given:{type(model).__name__}"),
        likelihood=likelihood if isinstance(likelihood, str) else f"given:{type(observation).__name__}",
        **{name: value for name, value in {"em": em, "sampler": sampler}.items() if value is not None},
        chains=chains,
        seed=seed,
        device=device,
    )
    directory = Path(tempfile.mkdtemp(prefix="sgmcmc_prune-") if out is None else Path(out).expanduser())
    try:
        run = Run(config, directory, split_data(dataset, config), make_network, observation)
        run = _sampled(run, sampler is None, overwrite, progress)
    except BaseException:
        if out is None:
            shutil.rmtree(directory, ignore_errors=True)
        raise
    return Posterior(run, temporary=out is None)


def sample_by_name(
    data: DataConfig,
    model: ModelConfig,
    likelihood: str,
    *,
    out: Path,
    likelihood_options: tuple[str, ...] = (),
    batch_size: int | None = None,
    length: float = 1.0,
    in_chain: tuple[str, ...] = (),
    chains: int = 4,
    seed: int = 0,
    device: str = "cpu",
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """As `sample`, of data, a network and a likelihood that have names: the command `sample`.

    Parameters
    ----------
    data, model, likelihood
        As in a `RunConfig`; the batch size of `data` is not read.
    out : Path
        The run's directory; the same call goes on there.
    likelihood_options : tuple of str
        NAME=VALUE, as in a `RunConfig`.
    batch_size : int, optional
        By default as `sample` chooses it.
    length : float
        Of sampling and forks, beside the default of 30,000 steps; a shorter chain has the whole burn-in.
    in_chain : tuple of str
        Criteria that prune inside the chains, in a fork each.
    chains, seed, device, overwrite, progress
        As in `sample`.

    Returns
    -------
    dict
        The content of `metrics.json`.

    Raises
    ------
    TypeError, ValueError, RunError
        As `sample`.
    """
    require(0 < length <= MOST_LENGTH, f"length is {length:g}; choose one above 0, up to {MOST_LENGTH:,}")
    check_device(device)
    named = RunConfig(
        preset="sample",
        data=dataclasses.replace(data, batch_size=1),
        model=model,
        likelihood=likelihood,
        likelihood_options=likelihood_options,
        device=device,
        seed=seed,
    )
    found = Run(named)
    inputs, targets = found.data.train[:2]
    _check_scales(found.likelihood, inputs, targets)
    network, example, count = found.model(0), inputs[:1], found.num_data
    size = _checked_batch(batch_size, count) or affordable_batch(network, example, count)
    chosen = default_settings(size, count, default_prior(network), default_schedule(size / count, length))
    config = replace(
        chosen,
        **{name: getattr(named, name) for name in ("model", "likelihood", "likelihood_options", "device", "seed")},
        data=dataclasses.replace(data, batch_size=size),
        chains=chains,
        execution="processes",
        **{"prune.in_chain": in_chain},
    )
    run = _sampled(Run(config, out, found.data), True, overwrite, progress)
    return dict(read_json(run.places.metrics, checksum=True))


def _checked_batch(batch_size: int | None, count: int) -> int | None:
    """A batch size that was given; ValueError if there is none such."""
    require(batch_size is None or 1 <= batch_size <= count, f"batch_size is {batch_size}; choose 1 to {count} examples")
    return batch_size


def _chosen_batch(affordable: int, loader_batch: int | None, count: int, progress: bool) -> int:
    """What a step can afford, or what a loader makes, which is said where it leaves more minibatch noise."""
    if loader_batch is None:
        return affordable
    if loader_batch < affordable and progress:
        print(
            f"batches of {loader_batch}, as the DataLoader makes them; batch_size={affordable} has less minibatch noise"
        )
    return min(loader_batch, count)


def _sampled(run: Run, choose_step: bool, overwrite: bool, progress: bool) -> Run:
    """The run, sampled: from its start, or on from where its directory ends."""
    directory = run.places.directory
    begun = _begun(directory) and not overwrite
    losses = _start(run)
    if begun:
        _check_same(run, losses)
    if run.given:  # whose network and likelihood have no names that could be compared
        run.data.dataset.provenance["start"] = losses
    if choose_step:
        chosen = load_config(directory).sampler if begun else stable_sampler(run, progress)
        config = replace(run.config, sampler=chosen)
        run = Run(config, directory, run.data, run.network, run.likelihood)
    if begun:
        resume(directory, progress, run)
    else:
        start(run, overwrite, progress)
    return run


def _observation(likelihood: str | Likelihood, targets: Tensor) -> ObservationModel:
    """The likelihood as an observation model."""
    found = named_likelihood(RunConfig(likelihood=likelihood)) if isinstance(likelihood, str) else likelihood
    if not callable(found) or isinstance(found, type):
        raise TypeError(
            f"likelihood is {found!r}; give a name, an ObservationModel or a function of outputs and targets"
        )
    return observation_model(found, labels=is_labels(targets))


def _held_out(x: Tensor, y: Tensor, share: float, seed: int) -> Tensor:
    """Which examples are held out, at random by the seed alone: bool, shape (n,)."""
    count = round(share * len(x)) if 0 < share < 1 else 0
    if not 1 <= count < len(x):
        raise ValueError(
            f"holdout is {share} of {len(x)} examples, which leaves {count} for the tables; give a share in (0, 1), or "
            "`test` examples"
        )
    order = torch.randperm(len(x), generator=seeded_generator("held out of given data", seed))
    held = torch.zeros(len(x), dtype=torch.bool)
    held[order[:count]] = True
    if is_labels(y):  # a class that would be held out as a whole gives one example back: a network has to see it
        for label in (set(y.tolist()) - set(y[~held].tolist())) if count else ():
            held[int((y == label).nonzero()[0])] = False
    return held


def _begun(directory: Path) -> bool:
    """Whether a run was begun in a directory; ValueError if it holds something else."""
    if RunPlaces(directory).config.is_file():
        return True
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"out is {directory}, a file; give a directory")
    if directory.is_dir() and any(path != RunPlaces(directory).lock for path in directory.iterdir()):
        raise ValueError(f"out is {directory}, which holds files and no run; give a new directory")
    return False


def _check_arguments(prior: Any, em: Any, sampler: Any, schedule: Any, seed: int) -> None:
    """TypeError or ValueError for what is no setting."""
    kinds = {"prior": PriorConfig, "em": EMSettings, "sampler": SamplerConfig, "schedule": ScheduleConfig}
    for (name, kind), value in zip(kinds.items(), (prior, em, sampler, schedule), strict=True):
        if not isinstance(value, kind | None):
            raise TypeError(f"{name} is {value!r}; give a sgmcmc_prune.{kind.__name__}")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"seed is {seed!r}; give an integer")


def _check_scales(observation: Likelihood, inputs: Any, targets: Tensor) -> None:
    """Refuse targets, and warn of inputs, of a scale that the default prior does not expect."""
    if isinstance(observation, Gaussian):
        _check_scale(targets)
    _warn_of_scale(inputs)


def _check_scale(targets: Tensor) -> None:
    """ValueError for targets that weights of a prior of about one cannot reach."""
    if len(targets) < 2:
        raise ValueError(f"there are {len(targets)} training examples; a regression needs two or more")
    for column in targets.reshape(len(targets), -1).double().T:
        mean, deviation = float(column.mean()), float(column.std())
        if deviation == 0:
            raise ValueError(f"all targets are {mean:g}; there is nothing to learn")
        if not SCALES[0] <= deviation <= SCALES[1] or abs(mean) > SCALES[1]:
            raise ValueError(
                f"targets have mean {mean:.3g} and standard deviation {deviation:.3g}, and the priors of weights and "
                "noise expect about 0 and 1; standardise them: (y - y.mean(0)) / y.std(0)"
            )


def _warn_of_scale(inputs: Any) -> None:
    """Say which features are far larger than weights of a prior of about one expect; images are normalised."""
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim != 2:
        return
    deviation, mean = torch.std_mean(inputs.double(), 0)
    if large := ((mean.abs() > SCALES[1]) | (deviation > SCALES[1])).nonzero().flatten().tolist():
        warnings.warn(
            f"input {large[0]} has mean {float(mean[large[0]]):.3g} and standard deviation "
            f"{float(deviation[large[0]]):.3g} ({len(large)} of {len(mean)} inputs are as large), and the prior of the "
            "first layer expects about 0 and 1; standardise them: (x - x.mean(0)) / x.std(0)",
            stacklevel=4,
        )


def _network(model: nn.Module | Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """What makes a chain's network from its seed; the global generators are left as they were."""
    if not isinstance(model, nn.Module) and not callable(model):
        raise TypeError(f"model is a {type(model).__name__}; give an nn.Module, or a callable that makes one")

    make = partial(_anew, model) if isinstance(model, nn.Module) else model

    def start_of(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            made = make()
        if not isinstance(made, nn.Module):
            raise TypeError(f"model() gave a {type(made).__name__}; it must make an nn.Module")
        return made

    first, second = (trainable(start_of(seed)) for seed in (0, 1))
    if {id(p) for p in first.values()} & {id(p) for p in second.values()}:
        raise ValueError(
            "model() gives the same parameters at every call, which chains would share; make the network anew in it, "
            "or hand over the nn.Module itself"
        )
    fixed = [n for n, p in first.items() if p.ndim > 1 and n in second and torch.equal(p, second[n])]
    if fixed:
        why, help_ = (
            ("since their module has no reset_parameters", "A callable that makes the network anew would help")
            if isinstance(model, nn.Module)
            else ("since model() makes them alike", "Let it draw them from torch's default generator, and set no seed")
        )
        warnings.warn(
            f"{', '.join(fixed)} start alike in every chain, {why}; R-hat sees less of what chains have not found. "
            f"{help_}",
            stacklevel=3,
        )
    return start_of


def _anew(model: nn.Module) -> nn.Module:
    """A copy whose trained layers start anew, children first: an owner has the last word; what is frozen is kept."""
    network = copied(model).cpu()
    for module in reversed(list(network.modules())):
        trained = any(p.requires_grad for p in module.parameters())
        if trained and callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    with torch.no_grad():
        for p, given in zip(network.parameters(), model.parameters(), strict=True):
            if not p.requires_grad:
                p.copy_(given)
    return network


def _start(run: Run) -> list[float]:
    """Losses of a few examples at the start of chain 0: another network or likelihood has others."""
    network = run.model(0)
    check_targets(run.likelihood, run.data.train[1])
    rehearsed(run, network)
    check_inputs(run, network)
    network.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        inputs, targets = (part[:8] for part in run.data.train[:2])
        found: list[float] = run.likelihood(network(inputs), targets).double().tolist()
    return found


def _check_same(run: Run, losses: list[float]) -> None:
    """ValueError if a directory was started with other data, or another network or likelihood."""
    dataset = run.data.dataset
    if run.has_other_data_than(dataset):
        raise ValueError(
            f"{run.out} was sampled from other data, or other ones were held out (by seed and holdout); give the same, "
            "another directory, or overwrite it (overwrite=True, --overwrite)"
        )
    before = run.recorded_data.get("start")
    if before is not None and not torch.allclose(torch.tensor(losses), torch.tensor(before), rtol=1e-3, atol=1e-5):
        raise ValueError(
            f"{run.out} was sampled with another network or likelihood; give the same, another directory, or overwrite "
            "it (overwrite=True)"
        )
