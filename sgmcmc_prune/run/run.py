"""One run: its configuration, its data, the files it keeps, and everything that a chain is built from.

The command line, the experiments, the comparison and a library user make the same object.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sgmcmc_prune import choices, models
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.pruner import Pruner
from sgmcmc_prune.chains.rehearsal import EXAMPLES
from sgmcmc_prune.chains.schedules import Cyclical, Phase
from sgmcmc_prune.chains.smaller import CuttingChain
from sgmcmc_prune.criteria.base import make_criterion
from sgmcmc_prune.data.augmentation import Augmentation
from sgmcmc_prune.data.batches import Augmented, MinibatchStream, TrainSet, Transform, minibatches
from sgmcmc_prune.data.image_data import Dataset
from sgmcmc_prune.data.pictures import PictureInputs
from sgmcmc_prune.data.prefetch import PrefetchedStream
from sgmcmc_prune.likelihoods import ObservationModel, observation_model
from sgmcmc_prune.machine.distributed import ALONE, Ranks
from sgmcmc_prune.models.vit import projections
from sgmcmc_prune.preconditioners import Preconditioner
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.em import adaptation
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.priors.spike_slab import SpikeSlab, smallest_stable_spike
from sgmcmc_prune.pruning.prunable import output_weights, prunable, trainable
from sgmcmc_prune.run.checks import prior_class
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.data import SAME_AGAIN, Data, Probes, choose_probes, likelihood, load_data, require_same_again
from sgmcmc_prune.run.schedules import dense_schedule, fork_schedule
from sgmcmc_prune.samplers import MomentumSampler, Sampler
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.places import RunPlaces

#: Training examples that re-estimate the BatchNorm statistics of a draw, and the key of their minibatches.
STATISTICS_BATCH, STATISTICS_BATCHES = 250, 8
STATISTICS_CHAIN = 2**16 - 1


class Run:
    """A run, and the pieces that it is made of.

    Parameters
    ----------
    config : RunConfig
    out : Path, optional
        Its directory; what needs none works without.
    data : Data, optional
        Read when they are first needed, if they are not given.
    network : callable, optional
        Makes the network of a chain from a seed, where the configuration names none.
    observation : ObservationModel, optional
        The likelihood, where the configuration names none.
    """

    def __init__(
        self,
        config: RunConfig,
        out: Path | None = None,
        data: Data | None = None,
        network: Callable[[int], nn.Module] | None = None,
        observation: ObservationModel | None = None,
    ) -> None:
        self.config, self.out, self.network = config, out, network
        if data is not None:
            self.data = data
        if observation is not None:
            self.likelihood = observation

    @property
    def given(self) -> bool:
        """Whether the run has parts that were handed over as objects, which another process cannot load."""
        return self.network is not None

    @cached_property
    def data(self) -> Data:
        """The splits; ValueError if they are not those that the run was started with, or would be others next time."""
        data = load_data(self.config)
        if not self.recorded_data:
            require_same_again(self.config, data.dataset)
        if self.has_other_data_than(data.dataset):
            raise ValueError(
                f"data set {self.config.data.name} gives other examples than when {self.out} was started: {SAME_AGAIN}"
            )
        return data

    def read_anew(self) -> None:
        """Read the data without a look at those of a run that is to be overwritten."""
        if "data" not in vars(self):
            self.data = Run(self.config).data

    @property
    def recorded_data(self) -> dict[str, Any]:
        """What `run.json` says of the data; empty before the run was started."""
        if self.out is None or not self.places.info.is_file():
            return {}
        found: dict[str, Any] = read_json(self.places.info, checksum=True).get("data", {})
        return found

    def has_other_data_than(self, dataset: Dataset) -> bool:
        """Whether the run was started with other examples, where that can be told."""
        return self.recorded_data.get("files", {}).get("tensors") not in (None, dataset.digest)

    @property
    def places(self) -> RunPlaces:
        """Where its files are; ValueError without a directory."""
        if self.out is None:
            raise ValueError("this run has no directory: give it one as `out`")
        return RunPlaces(self.out)

    @property
    def evaluation_split(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels that the table is made on."""
        return self.data.test if self.config.evaluate == "test" else self.data.validation

    @property
    def num_data(self) -> int:
        """N, the number of training examples."""
        return len(self.data.train[1])

    @property
    def stages(self) -> tuple[str | None, ...]:
        """The stages that every chain passes: dense (None), then one fork per in-chain criterion."""
        return (None, *self.config.prune.in_chain)

    @property
    def steps_per_epoch(self) -> float:
        """Minibatches in a pass over the training data."""
        return self.num_data / self.config.data.batch_size

    def schedule(self, criterion: str | None) -> Cyclical:
        """The schedule of one stage, in steps."""
        make = dense_schedule if criterion is None else fork_schedule
        return make(self.config, self.steps_per_epoch)

    @property
    def num_steps(self) -> int:
        """Steps of one chain in all its stages, and of its control."""
        control = self.num_control_steps if self.config.control else 0
        return sum(self.schedule(criterion).num_steps for criterion in self.stages) + control

    @property
    def num_control_steps(self) -> int:
        """Steps of one network of the control: those of a dense chain, and of a fork if there is any."""
        return sum(self.schedule(criterion).num_steps for criterion in self.stages[:2])

    def gradient_evaluations(self, targets: int = 0) -> int:
        """Backward passes of one example behind a row: of all chains, dense and in a fork through so many targets."""
        steps = self.schedule(None).num_steps
        if targets:
            fork = fork_schedule(self.config, self.steps_per_epoch)
            steps += targets * self.config.prune.cycles * (fork.explore + fork.sample)
        return self.config.chains * steps * self.config.data.batch_size

    @cached_property
    def probes(self) -> Probes:
        """The examples whose outputs are kept with every draw."""
        return choose_probes(self.config, self.data)

    @property
    def probe_coords(self) -> dict[str, Sequence[Any]]:
        """Labels of what is stored at the probes: the examples' places in their set, and classes by their names."""
        classes = self.data.dataset.classes
        named = {"class": classes} if classes and self.num_outputs == len(classes) else {}
        return {"probe": self.probes.index.tolist(), **named}

    @cached_property
    def likelihood(self) -> ObservationModel:
        """What a target is distributed as, given the network's outputs."""
        found = observation_model(likelihood(self.config), labels=self.data.dataset.num_classes > 0)
        return found.in_unit(self.data.dataset.unit)

    @property
    def num_outputs(self) -> int:
        """Numbers that describe the distribution of one target."""
        return self.likelihood.num_outputs(self.data.dataset.target_width)

    def model(self, chain: int) -> nn.Module:
        """The network of one chain at its own random start."""
        m, seed = self.config.model, self.config.seed * 2**16 + chain
        width = self.data.dataset.target_width
        if self.network is not None:
            return self.likelihood.completed(self.network(seed), width).to(self.config.device)
        named = {} if m.normalisation is None else {"normalisation": m.normalisation}
        options = {**named, **choices.options(m.options, "model.options")}
        outputs = self.likelihood.num_network_outputs(width)
        model = models.build(m.name, self.data.input_shape, outputs, seed=seed, **options)
        completed = self.likelihood.completed(model, width).to(self.config.device)
        return models.in_fast_layout(m.name, completed, self.config.precision)

    @cached_property
    def train(self) -> TrainSet:
        """The training examples, augmented if that was asked for; ValueError if they are no images then."""
        data, kind = self.data, self.config.data.augmentation
        if kind == "none" or isinstance(data.train, Augmented):
            return data.train
        if len(data.input_shape) != 3 or len(data.dataset.mean) != data.input_shape[0]:
            raise ValueError(f"data.augmentation {kind!r} changes images; examples have shape {data.input_shape}")
        moments = (data.dataset.mean, data.dataset.std)
        mean, std = (torch.tensor(moment, device=self.config.device) for moment in moments)

        def augment(seed: int, chain: int) -> Transform:
            return Augmentation(kind, data.input_shape[-1], -mean / std, seed, chain)

        return Augmented(*data.train, augment)

    def stream(self, chain: int, batch_size: int | None = None) -> MinibatchStream:
        """The minibatches of one chain, augmented if that was asked for, and read ahead if they are not in memory."""
        train, seed, d = self.train, self.config.seed, self.config.data
        size = batch_size or d.batch_size
        if isinstance(train[0], PictureInputs):
            augment = train.augment(seed, chain) if isinstance(train, Augmented) else None
            return PrefetchedStream(train[0], train[1], size, seed, chain, augment, d.workers)
        return minibatches(train, size, seed, chain)

    def statistics_batches(self) -> Callable[[], list[Tensor]]:
        """Input batches for the statistics of BatchNorm, as training sees them, under a key of their own.

        They are made at the first call: a network without batch normalisation needs none.
        """

        @cache
        def batches() -> list[Tensor]:
            size = min(STATISTICS_BATCH, self.num_data)
            stream = self.stream(STATISTICS_CHAIN, size)
            return [stream.batch(step)[0] for step in range(STATISTICS_BATCHES)]

        return batches

    def groups(self, model: nn.Module) -> dict[str, GroupMap]:
        """Group maps of the prunable parameters: where whole units are pruned, not of those that are the outputs.

        Raises
        ------
        ValueError
            If whole units shall be pruned, and it cannot be found which weights make the outputs; if heads shall be,
            and the network has none.
        """
        kind, kept = self.config.prior.group, set[str]()
        if kind == "head":
            heads, weights = projections(model), prunable(model)
            if not heads:
                raise ValueError(
                    "prior.group 'head' prunes attention heads, and the network has no layer of the type "
                    "sgmcmc_prune.models.vit.Attention; use another group"
                )
            shapes = {name: tuple(weights[name].shape) for name in heads if name in weights}
            return {name: GroupMap.heads(shape, heads[name]) for name, shape in shapes.items()}
        if kind in ("node", "filter", "input"):
            kept = output_weights(model, self.data.train[0][:EXAMPLES], dim=1 if kind == "input" else 0)
            if not kept and kind != "input":
                raise ValueError(
                    f"prior.group {kind!r} prunes whole units, and no weight was found whose units are the outputs, "
                    "which must stay (is there a normalisation behind them?); use another group"
                )
        return {name: GroupMap(kind, tuple(p.shape)) for name, p in prunable(model).items() if name not in kept}

    def prior(self, model: nn.Module, chain: int) -> Prior:
        """The prior of one chain (hyperparameters are learned by each chain on its own).

        Nothing of it gets narrower than the sampler's largest step can follow.
        """
        settings, family = self.config.prior, prior_class(self.config)
        read = {name: getattr(settings, name) for name in family.settings}
        context: dict[str, Any] = {
            "options": choices.options(settings.options, "prior.options"),
            "groups": self.groups(model),
            "min_variance": self.smallest_spike,
        }
        with choices.calling("prior", settings.family):
            prior: Prior = family.configured(read, trainable(model), **context, seed=self.config.seed, chain=chain)
        return prior

    def sampler(self, model: nn.Module, prior: Prior, chain: int) -> Sampler:
        """The sampler of one chain; refuses a spike that its largest step cannot follow."""
        s, spike, floor = self.config.sampler, self.config.prior.spike_variance, self.smallest_spike
        if isinstance(prior, SpikeSlab) and spike < floor:
            enough = math.ceil(self.num_data * floor / spike)
            raise ValueError(
                f"spike_variance {spike:.3g} is too narrow for the step size {s.lr:g} and {self.num_data} training "
                f"examples: the sampler would be unstable under {floor:.3g}. Widen the spike to at least that, train "
                f"on {enough} examples or more, or lower lr"
            )
        settings: dict[str, Any] = {
            "lr": s.lr,
            "num_data": self.num_data,
            "temperature": s.temperature,
            "prior": prior,
            "preconditioner": choices.make("mass matrix", s.preconditioner),
            "seed": self.config.seed,
            "chain": chain,
            "noise": s.noise,
            "implementation": s.implementation,
            **choices.options(s.options, "sampler.options"),
        }
        kind = self.sampler_class
        if issubclass(kind, MomentumSampler):
            settings["momentum"] = s.momentum
        with choices.calling("sampler", s.name):
            return kind(trainable(model).items(), **settings)

    @property
    def sampler_class(self) -> type[Sampler]:
        """The sampler's class; ValueError if a name is none of a sampler."""
        kind = choices.load("sampler", self.config.sampler.name)
        if not (isinstance(kind, type) and issubclass(kind, Sampler)):
            raise ValueError(f"sampler {self.config.sampler.name!r} is no subclass of sgmcmc_prune.samplers.Sampler")
        return kind

    @property
    def smallest_spike(self) -> float:
        """The narrowest spike that the run's largest step can follow.

        Without its noise every sampler is SGD, so all share SGD's stability limit, l a / M < 2 (1 + beta).
        """
        s = self.config.sampler
        momentum = s.momentum if issubclass(self.sampler_class, MomentumSampler) else 0.0
        mass = choices.make("mass matrix", s.preconditioner)
        if not isinstance(mass, Preconditioner):
            raise ValueError(f"mass matrix {s.preconditioner!r} is no sgmcmc_prune.preconditioners.Preconditioner")
        if not (isinstance(mass.min_mass, int | float) and 0 < mass.min_mass < math.inf):
            raise ValueError(
                f"mass matrix {s.preconditioner!r} has min_mass {mass.min_mass!r}; it must be a number above 0, the "
                "smallest mass that it gives"
            )
        return smallest_stable_spike(s.lr, self.num_data, mass.min_mass, momentum)

    def pruner(self, model: nn.Module, name: str, chain: int, reference: Sequence[dict[str, Tensor]] | None) -> Pruner:
        """The pruner of one in-chain fork."""
        p = self.config.prune
        return Pruner(
            make_criterion(name),
            p.targets,
            self.groups(model),
            allocation=p.allocation,
            growth=p.growth,
            cycles=p.cycles,
            remaining=choices.load("growth", p.growth_schedule),
            reference=reference,
            seed=self.config.seed * 2**16 + chain,
        )

    def chain(
        self,
        index: int,
        schedule: Cyclical,
        criterion: str | None = None,
        reference: Sequence[dict[str, Tensor]] | None = None,
        ranks: Ranks = ALONE,
    ) -> Chain:
        """One chain at its start, dense or (with a criterion) a fork, taken by one process or several.

        Parameters
        ----------
        index : int
        schedule : Cyclical
        criterion : str, optional
            By which a fork prunes.
        reference : sequence of masks, optional
            Whose sparsity by layer the fork copies.
        ranks : Ranks
        """
        config, model = self.config, self.model(index)
        prior = self.prior(model, index)
        adapt: tuple[Phase, ...] = ("burn_in",)
        post_hoc = {name: make_criterion(name) for name in config.prune.post_hoc}
        pruner, kind = None, Chain
        if criterion is not None:
            kind = CuttingChain if config.prune.cut else Chain
            adapt, post_hoc = (("explore",) if config.prune.em else ()), {}
            pruner = self.pruner(model, criterion, index, reference)
        return kind(
            index,
            model,
            self.sampler(model, prior, index),
            schedule,
            self.stream(index),
            self.likelihood,
            em=adaptation(config.em, prior, self.smallest_spike),
            pruner=pruner,
            adapt=adapt,
            indicator_every=config.prior.indicator_every,
            ranks=ranks,
            precision=config.precision,
            compiled=config.compile_network,
            criteria={name: chosen for name, chosen in post_hoc.items() if not chosen.kept_by_chains},
        )
