"""From a configuration to the pieces of a run: data, networks, priors, samplers, chains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from sgmcmc_prune import choices, models
from sgmcmc_prune import data as datasets
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.pruner import Pruner
from sgmcmc_prune.chains.rehearsal import EXAMPLES
from sgmcmc_prune.chains.schedules import Cyclical, Phase
from sgmcmc_prune.criteria.base import Criterion
from sgmcmc_prune.data.augmentation import Augmentation
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.data.image_data import Dataset, LabelledImages, held_out, hold_out
from sgmcmc_prune.data.pictures import PictureInputs
from sgmcmc_prune.data.prefetch import PrefetchedStream
from sgmcmc_prune.data.seeding import seeded_generator
from sgmcmc_prune.likelihoods import Likelihood
from sgmcmc_prune.machine.distributed import ALONE, Ranks
from sgmcmc_prune.preconditioners import Preconditioner
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.em import adaptation
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.priors.spike_slab import SpikeSlab, smallest_stable_spike
from sgmcmc_prune.pruning.prunable import output_weights, prunable, trainable
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.samplers import MomentumSampler, Sampler

#: Training examples that re-estimate the BatchNorm statistics of a draw, and the key of their minibatches.
STATISTICS_BATCH, STATISTICS_BATCHES = 250, 8
STATISTICS_CHAIN = 2**16 - 1


@dataclass(frozen=True)
class Data:
    """The splits of a run on its device: labels, and network inputs as tensors (or `PictureInputs`, read on demand)."""

    dataset: Dataset
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train[0].shape[1:])


def load_data(config: RunConfig) -> Data:
    """Read and split the data of a configuration. The split depends on the seed alone."""
    options = choices.options(config.data.options, "data.options")
    dataset = datasets.load(config.data.name, config.data.data_dir, **options)
    train, validation = hold_out(dataset.train, config.data.validation, config.seed)

    def tensors(part: LabelledImages) -> tuple[Tensor, Tensor]:
        return part.inputs(dataset.mean, dataset.std, config.device), part.labels.to(config.device)

    return Data(dataset, tensors(train), tensors(validation), tensors(dataset.test))


@dataclass(frozen=True)
class Probes:
    """Examples whose outputs are kept with every draw; `held_out`, shape (probe,): those in the validation split."""

    inputs: Tensor
    labels: Tensor
    held_out: Tensor


def probes(config: RunConfig, data: Data) -> Probes:
    """The first of a fixed random order of the official training images: the same for every seed and every split.

    A run trains on those that its validation split does not hold.
    """
    images, seed = data.dataset.train, config.seed
    if config.probes > len(images):
        raise ValueError(f"probes is {config.probes}; choose 1 to {len(images)}, the number of training images")
    index = torch.randperm(len(images), generator=seeded_generator("probes"))[: config.probes]
    chosen = images.subset(index)
    inputs = chosen.inputs(data.dataset.mean, data.dataset.std, config.device)[:]
    held = held_out(len(images), config.data.validation, seed)[index]
    return Probes(inputs, chosen.labels.to(config.device), held)


def model_options(config: RunConfig) -> dict[str, Any]:
    """What `models.build` is given beside shape and classes."""
    chosen = config.model.normalisation
    named = {} if chosen is None else {"normalisation": chosen}
    return {**named, **choices.options(config.model.options, "model.options")}


def build_model(config: RunConfig, data: Data, chain: int) -> nn.Module:
    """The network of one chain at its own random start."""
    seed = config.seed * 2**16 + chain
    options = model_options(config)
    model = models.build(config.model.name, data.input_shape, data.dataset.num_classes, seed=seed, **options)
    return models.in_fast_layout(config.model.name, model.to(config.device))


def build_stream(config: RunConfig, data: Data, chain: int, batch_size: int | None = None) -> MinibatchStream:
    """The minibatches of one chain, augmented if that was asked for, and read ahead if they are not in memory."""
    (inputs, labels), d = data.train, config.data
    batch_size = batch_size or d.batch_size
    augment = None
    if d.augmentation != "none":
        if len(data.input_shape) != 3 or len(data.dataset.mean) != data.input_shape[0]:
            raise ValueError(
                f"data.augmentation {d.augmentation!r} changes images; examples have shape {data.input_shape}"
            )
        mean, std = (torch.tensor(moment, device=config.device) for moment in (data.dataset.mean, data.dataset.std))
        augment = Augmentation(d.augmentation, data.input_shape[-1], -mean / std, config.seed, chain)
    if isinstance(inputs, PictureInputs):
        return PrefetchedStream(inputs, labels, batch_size, config.seed, chain, augment, d.workers)
    return MinibatchStream(inputs, labels, batch_size, config.seed, chain, augment)


def statistics_batches(config: RunConfig, data: Data) -> Callable[[], list[Tensor]]:
    """Input batches for the statistics of BatchNorm, as training sees them, under a key of their own.

    They are made at the first call: a network without batch normalisation needs none.
    """

    @cache
    def batches() -> list[Tensor]:
        size = min(STATISTICS_BATCH, len(data.train[1]))
        stream = build_stream(config, data, STATISTICS_CHAIN, size)
        return [stream.batch(step)[0] for step in range(STATISTICS_BATCHES)]

    return batches


def dense_schedule(config: RunConfig, steps_per_epoch: float) -> Cyclical:
    """Burn-in, then cycles of exploration (from `lr_explore`) and sampling."""
    s = config.schedule
    return _cyclical(config, "schedule", steps_per_epoch, s.burn_in, s.cycles, s.explore, s.sample, s.relax, s.draws)


def fork_schedule(config: RunConfig, steps_per_epoch: float) -> Cyclical:
    """So many cycles per target sparsity."""
    p = config.prune
    cycles = len(p.targets) * p.cycles
    return _cyclical(config, "prune", steps_per_epoch, 0.0, cycles, p.explore, p.sample, p.relax, p.draws)


def _cyclical(
    config: RunConfig,
    part: str,
    steps_per_epoch: float,
    burn_in: float,
    cycles: int,
    explore: float,
    sample: float,
    relax: float,
    draws: int,
) -> Cyclical:
    def steps(epochs: float) -> int:
        return round(epochs * steps_per_epoch)

    thin = (steps(sample) - steps(relax)) // max(draws, 1)
    if cycles and (draws < 1 or thin < 1):
        raise ValueError(
            f"{draws} draws do not fit in {steps(sample) - steps(relax)} steps a cycle ({part}.sample {sample:g} less "
            f"{part}.relax {relax:g} epochs); ask for fewer draws (at least one), or sample longer"
        )
    s = config.sampler
    return Cyclical(
        lr=s.lr,
        lr_explore=s.lr_explore,
        lr_min=s.lr_min,
        momentum=s.momentum,
        temperature=s.temperature,
        burn_in=steps(burn_in),
        cycles=cycles,
        explore=steps(explore),
        sample=steps(relax) + draws * thin if cycles else 0,
        relax=steps(relax),
        thin=max(thin, 1),
        explore_temperature=s.explore_temperature,
    )


def build_prior(config: RunConfig, data: Data, model: nn.Module, chain: int, min_variance: float = 0.0) -> Prior:
    """The prior of one chain (hyperparameters are learned by each chain on its own).

    `min_variance` is the narrowest that the sampler's largest step can follow; the horseshoe's scales stop there.
    """
    family = choices.load("prior", config.prior.family)
    if not (isinstance(family, type) and issubclass(family, Prior)):
        raise ValueError(f"prior {config.prior.family!r} is no subclass of sgmcmc_prune.priors.Prior")
    options = choices.options(config.prior.options, "prior.options")
    context: dict[str, Any] = {"options": options, "groups": groups(config, data, model), "min_variance": min_variance}
    prior: Prior = family.configured(config.prior, trainable(model), **context, seed=config.seed, chain=chain)
    return prior


def build_sampler(config: RunConfig, model: nn.Module, prior: Prior, num_data: int, chain: int) -> Sampler:
    """The sampler of one chain; refuses a spike that its largest step cannot follow."""
    s = config.sampler
    floor = smallest_spike(config, num_data)
    if isinstance(prior, SpikeSlab) and config.prior.spike_variance < floor:
        raise ValueError(
            f"spike_variance {config.prior.spike_variance:.3g} is too narrow for the step size {s.lr:g}: the sampler "
            f"would be unstable under {floor:.3g}. Widen the spike to at least that, or lower lr"
        )
    settings: dict[str, Any] = {
        "lr": s.lr,
        "num_data": num_data,
        "temperature": s.temperature,
        "prior": prior,
        "preconditioner": choices.make("mass matrix", s.preconditioner),
        "seed": config.seed,
        "chain": chain,
        "noise": s.noise,
        "implementation": s.implementation,
        **choices.options(s.options, "sampler.options"),
    }
    kind = _sampler_class(config)
    if issubclass(kind, MomentumSampler):
        settings["momentum"] = s.momentum
    return kind(trainable(model).items(), **settings)


def _sampler_class(config: RunConfig) -> type[Sampler]:
    kind = choices.load("sampler", config.sampler.name)
    if not (isinstance(kind, type) and issubclass(kind, Sampler)):
        raise ValueError(f"sampler {config.sampler.name!r} is no subclass of sgmcmc_prune.samplers.Sampler")
    return kind


def smallest_spike(config: RunConfig, num_data: int) -> float:
    """The narrowest spike that the run's largest step can follow.

    Without its noise every sampler is SGD, so all share SGD's stability limit, l a / M < 2 (1 + beta).
    """
    momentum = config.sampler.momentum if issubclass(_sampler_class(config), MomentumSampler) else 0.0
    mass: Preconditioner = choices.make("mass matrix", config.sampler.preconditioner)
    return smallest_stable_spike(config.sampler.lr, num_data, mass.min_mass, momentum)


def make_criterion(name: str) -> Criterion:
    """The criterion of a name; ValueError if it is no `Criterion`."""
    made = choices.make("criterion", name)
    if not isinstance(made, Criterion):
        raise ValueError(
            f"criterion {name!r} makes a {type(made).__name__}; it must be a subclass of criteria.base.Criterion"
        )
    return made


def likelihood(config: RunConfig) -> Likelihood:
    """The likelihood of a run's examples."""
    found = choices.load("likelihood", config.likelihood)
    if not callable(found):
        raise ValueError(f"likelihood {config.likelihood!r} is of type {type(found).__name__}; it must be callable")
    chosen: Likelihood = found
    return chosen


def build_chain(
    config: RunConfig,
    data: Data,
    index: int,
    schedule: Cyclical,
    pruner: Pruner | None = None,
    ranks: Ranks = ALONE,
) -> Chain:
    """One chain, dense or (with a pruner) a fork, taken by one process or several."""
    model = build_model(config, data, index)
    num_data = len(data.train[1])
    floor = smallest_spike(config, num_data)
    prior = build_prior(config, data, model, index, floor)
    sampler = build_sampler(config, model, prior, num_data, index)
    stream = build_stream(config, data, index)
    adapt: tuple[Phase, ...] = ("burn_in",)
    post_hoc = {name: make_criterion(name) for name in config.prune.post_hoc}
    if pruner is not None:
        adapt, post_hoc = (("explore",) if config.prune.em else ()), {}
    return Chain(
        index,
        model,
        sampler,
        schedule,
        stream,
        likelihood(config),
        adaptation(config.em, prior, floor),
        pruner,
        adapt,
        config.prior.indicator_every,
        ranks,
        config.precision,
        config.compile_network,
        {name: chosen for name, chosen in post_hoc.items() if not chosen.kept_by_chains},
    )


def groups(config: RunConfig, data: Data, model: nn.Module) -> dict[str, GroupMap]:
    """Group maps of the prunable parameters: where whole units are pruned, not of those that are the outputs.

    Raises
    ------
    ValueError
        If whole units shall be pruned, and it cannot be found which weights make the outputs.
    """
    kind = config.prior.group if config.prior.family == "spike_slab" else "weight"
    kept: set[str] = set()
    if kind in ("node", "filter", "input"):
        kept = output_weights(model, data.train[0][:EXAMPLES], dim=1 if kind == "input" else 0)
        if not kept and kind != "input":
            raise ValueError(
                f"prior.group {kind!r} prunes whole units, and no weight was found whose units are the outputs, which "
                "must stay (is there a normalisation behind them?); use another group"
            )
    return {name: GroupMap(kind, tuple(p.shape)) for name, p in prunable(model).items() if name not in kept}


def build_pruner(
    config: RunConfig,
    data: Data,
    model: nn.Module,
    name: str,
    chain: int,
    reference: Sequence[dict[str, Tensor]] | None,
) -> Pruner:
    """The pruner of one in-chain fork."""
    p = config.prune
    return Pruner(
        make_criterion(name),
        p.targets,
        groups(config, data, model),
        allocation=p.allocation,
        growth=p.growth,
        cycles=p.cycles,
        remaining=choices.load("growth", p.growth_schedule),
        reference=reference,
        seed=config.seed * 2**16 + chain,
    )


def check_choices(config: RunConfig) -> None:
    """Load everything that a configuration names, and ask the criteria whether the run suits them.

    Raises
    ------
    ValueError
        If a user's module cannot be imported, or a criterion is refused.
    """
    for _, kind, name in config.choices():
        choices.load(kind, name)
    for where, names in (("post_hoc", config.prune.post_hoc), ("in_chain", config.prune.in_chain)):
        for place, name in enumerate(names):
            criterion = make_criterion(name)
            if reason := criterion.refused(config):
                raise ValueError(reason)
            if criterion.copies_layers and place == 0:
                raise ValueError(
                    f"{where} starts with {name!r}, which copies the per-layer sparsity of the first criterion; put "
                    "another criterion first"
                )


def check_device(device: str) -> None:
    """ValueError when the device does not exist here."""
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = torch.device("meta")
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}; choose cpu, cuda, or one of several GPUs as cuda:0")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count() or "no"
        raise ValueError(f"device is {device!r} but PyTorch sees {seen} CUDA devices here; use --device cpu")
