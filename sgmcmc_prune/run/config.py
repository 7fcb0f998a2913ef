"""The configuration: frozen dataclasses, checked when they are made. The command line is derived from them.

Lengths are in epochs of the training set (after the validation split), so that a preset means the same on any data set.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sgmcmc_prune import choices
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.settings import check_types, require

#: What a run gives to each part beside the settings that are named as they are given; no option may be one of these.
OTHERS = {
    "data": ("data_dir", "targets"),
    "model": ("input_shape", "num_classes", "seed"),
    "sampler": ("params", "num_data", "prior", "seed", "chain"),
    "prior": ("params", "seed", "chain", "min_variance"),
}


@dataclass(frozen=True)
class DataConfig:
    """Which data, and how they are split and batched.

    Parameters
    ----------
    name
        "fashion-mnist", "fashion-mnist-subset", "cifar10", "cifar100", "imagenet"; "idx:FOLDER" with images in the
        format of MNIST; a table: "csv:FILE:TARGET",
        "npz:FILE", or "uci:NAME" of the standard splits; or your own as "package.module:callable", which returns
        ((inputs, targets), (inputs, targets)) of training and test set.
    options
        NAME=VALUE for a table (test=0.1 seed=0; of "uci" split=0) or for a callable of your own.
    data_dir
        Folder with the official files; by default $SGMCMC_PRUNE_DATA, the system's data sets, or a download.
    validation
        Training examples held out; they are never trained on.
    batch_size
        Examples in a minibatch.
    augmentation
        Random changes of every training image: a departure from the posterior, which a run records.
    workers
        Threads that read pictures ahead of the step (imagenet only).
    """

    name: str = "fashion-mnist-subset"
    options: tuple[str, ...] = ()
    data_dir: Path | None = None
    validation: int = 1000
    batch_size: int = 64
    augmentation: Literal["none", "crop_flip", "crop_flip_erase", "resized_crop_flip"] = "none"
    workers: int = 4


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Parameters
    ----------
    name
        "lenet", "mlp", "linear", "resnet20", "resnet32", "resnet20_wide", "resnet32_wide", "resnet20_frn_swish",
        "resnet18", "resnet34", "resnet50", "wide_resnet28_10", "vgg16", "vit", "mlp-mixer", or your own as
        "package.module:callable", which is called with (input_shape, num_classes, **options) and returns a network.
    options
        NAME=VALUE for it, such as width=32.
    normalisation
        Of a convolutional network; by default its own, "batch". A claim about the posterior needs one of the others.
    """

    name: str = "lenet"
    options: tuple[str, ...] = ()
    normalisation: Literal["batch", "group", "filter_response", "filter_response_swish"] | None = None


@dataclass(frozen=True)
class SamplerConfig:
    """The sampler and its steps (on the scale of SGD's learning rate).

    Parameters
    ----------
    name
        "sghmc", "sgld", the splittings "baoab" and "obabo", "sgnht" (with a thermostat), "adaptive_sghmc" (which
        learns its own mass matrix: preconditioner identity), or your own as "package.module:class".
    options
        NAME=VALUE for it, such as form=released of "adaptive_sghmc".
    lr
        Largest step of the burn-in.
    lr_explore
        Largest step of each exploration, in cycles and in-chain pruning.
    lr_min
        Constant step while draws are collected.
    anneal
        What follows a cosine from one to the other: the "step", or the "time_step", its square root (the effective step
        of SGD, step / (1 - momentum), goes with it: as SGD's cosine, where "step" stays longer above).
    momentum
        Momentum at the step lr; friction moves with the step.
    temperature
        1 is the posterior, 0 its maximisation.
    explore_temperature
        Temperature of the explorations, by default the same; at 0 they are without noise, and without EM.
    preconditioner
        Mass matrix, adapted in the burn-in and frozen afterwards: "identity", one mass for every weight ("rmsprop") or
        for every tensor ("layerwise"), or your own as "package.module:class".
    noise
        Normal numbers, or random signs.
    implementation
        "compiled" where it can run ("auto"), else "reference"; the run records which.
    """

    name: str = "sghmc"
    options: tuple[str, ...] = ()
    lr: float = 0.1
    lr_explore: float = 0.05
    lr_min: float = 0.005
    anneal: Literal["step", "time_step"] = "step"
    momentum: float = 0.9
    temperature: float = 1.0
    explore_temperature: float | None = None
    preconditioner: str = "rmsprop"
    noise: Literal["gaussian", "rademacher"] = "gaussian"
    implementation: Literal["auto", "reference", "compiled", "triton"] = "auto"


@dataclass(frozen=True)
class PriorConfig:
    """The prior on the weights. Each family has some of these settings; a run names those that are given and not read.

    Parameters
    ----------
    family
        "spike_slab"; "gaussian", "laplace" or "student_t" with slab_variance for every parameter ("laplace" and
        "student_t" then learn a scale per weight matrix); "horseshoe", whose option is global_scale; or your own as
        "package.module:class", which is made of the named parameters.
    options
        NAME=VALUE for it, such as global_scale=0.01.
    mode
        How the indicators are treated: summed out, sampled, or held at their expectation (the paper's EM).
    group
        The weights that share an indicator, and are pruned together under any prior. Of a "head" they are those that
        read what an attention head gives; no other weights are pruned then.
    inclusion_rate
        Starting probability of the slab.
    spike
        Density of the spike.
    spike_variance
        Starting variance of the spike. The default is for single weights: the more weights share an indicator, the
        deeper is the valley between spike and slab, and a run records where chains will hardly cross it.
    slab_variance
        Starting variance of the slab.
    dense_variance
        Gaussian variance of biases and normalisation parameters.
    degrees_of_freedom
        Of "student_t", above 2.
    indicator_every
        Steps between two Gibbs updates of the indicators, or of the horseshoe's scales.
    """

    family: str = "spike_slab"
    options: tuple[str, ...] = ()
    mode: Literal["marginal", "gibbs", "em"] = "marginal"
    group: Literal["weight", "kernel", "filter", "node", "input", "head"] = "weight"
    spike: Literal["gaussian", "laplace"] = "gaussian"
    inclusion_rate: float = 0.5
    spike_variance: float = 1e-4
    slab_variance: float = 0.05
    dense_variance: float = 1.0
    degrees_of_freedom: float = 4.0
    indicator_every: int = 10


@dataclass(frozen=True)
class ScheduleConfig:
    """Burn-in, then cycles of exploration and sampling; lengths in epochs.

    Parameters
    ----------
    burn_in
        Epochs in which hyperparameters and mass matrix adapt.
    cycles
        Number of cycles.
    explore
        Epochs of exploration in each cycle.
    sample
        Epochs of sampling in each cycle.
    relax
        Epochs discarded at the start of each sampling phase.
    draws
        Draws kept from each cycle.
    """

    burn_in: float = 10.0
    cycles: int = 3
    explore: float = 1.5
    sample: float = 1.5
    relax: float = 0.5
    draws: int = 3

    @property
    def num_draws(self) -> int:
        """Draws kept of each chain."""
        return self.cycles * self.draws


@dataclass(frozen=True)
class PruneConfig:
    """Pruning, post hoc on the dense draws and in the chain.

    Parameters
    ----------
    targets
        Increasing sparsities; an in-chain fork passes them one after the other.
    allocation
        How a target is shared among layers.
    post_hoc
        Criteria for masks on the finished draws: "inclusion_probability", "expected_log_odds", "em_responsibility",
        "magnitude", "lamp", "root_mean_square", "signal_to_noise", "random", "conditional" (joint evidence, which moves
        the draws, too), or your own as "package.module:class".
    in_chain
        Criteria for masks that grow inside the chain; each forks from the dense chain.
    decisions
        Masks without a target on the finished draws: by inclusion probabilities "median" and "fdr", by any scores
        "loss_budget" (the largest sparsity whose loss on the held-out examples rises by less than `loss_budget` with
        probability 0.95), or your own as "package.module:function".
    curvature
        Of "conditional": "gram", "kfac", "ggn", "fisher", or your own as "package.module:class".
    curvature_options
        NAME=VALUE for it, such as size=100 of "fisher".
    curvature_examples
        Training examples that each curvature sees.
    stages
        Curvatures on the way of "conditional" to the largest target; 1 has one for each target.
    growth_schedule
        How the mask grows towards a target: "cubic", "linear", or your own as "package.module:function" of the share of
        its time, which gives the share that is left.
    fdr
        Level of the Bayesian false-discovery-rate decision.
    loss_budget
        Tolerated rise of the loss, in nats per example, of the decision of that name.
    cycles
        Cycles at each target; the mask grows in the first.
    explore
        Epochs of exploration in each cycle.
    sample
        Epochs of sampling in each cycle.
    relax
        Epochs discarded at the start of each sampling phase.
    draws
        Draws kept from each cycle.
    growth
        Share of a target's first exploration in which the mask grows.
    em
        Whether hyperparameters go on adapting while a fork explores.
    cut
        Whether a fork goes on in the cut network under its last mask: faster where the mask empties whole nodes, as
        those of prior.group "node" and "filter" do. Weights that only empty nodes read or send go then, too, so the
        row of that target has a higher sparsity than was asked for.
    """

    targets: tuple[float, ...] = (0.8, 0.9, 0.95, 0.98)
    allocation: Literal["global", "layerwise", "erk"] = "global"
    post_hoc: tuple[str, ...] = ("inclusion_probability", "magnitude", "signal_to_noise", "random")
    in_chain: tuple[str, ...] = ("inclusion_probability", "root_mean_square")
    decisions: tuple[str, ...] = ("median", "fdr")
    curvature: str = "ggn"
    curvature_options: tuple[str, ...] = ()
    curvature_examples: int = 2000
    stages: int = 12
    growth_schedule: str = "cubic"
    fdr: float = 0.1
    loss_budget: float = 0.02
    cycles: int = 1
    explore: float = 1.5
    sample: float = 0.75
    relax: float = 0.25
    draws: int = 3
    growth: float = 0.5
    em: bool = True
    cut: bool = False

    @property
    def num_draws(self) -> int:
        """Draws kept of each chain at each target."""
        return self.cycles * self.draws


def pruned_of(config: "RunConfig") -> str:
    """Of what a run's sparsity is the share."""
    return "attention heads" if config.prior.group == "head" else "weights"


@dataclass(frozen=True)
class RunConfig:
    """One run: everything that its result depends on, except the machine.

    Parameters
    ----------
    preset
        Name of the preset it started from.
    data, model, sampler, prior, em, schedule, prune
        The parts.
    likelihood
        Of each example: "categorical" (class labels), "bernoulli" (one or several 0 or 1), "gaussian" (numbers),
        "poisson" (counts), or your own as "package.module:function" of outputs and targets, which gives the negative
        log-likelihoods, or "package.module:class", an ObservationModel.
    likelihood_options
        NAME=VALUE for it, such as noise=heteroscedastic of "gaussian" (by default learned; a number is known).
    chains
        Number of chains; each has its own start, noise, minibatches and hyperparameters.
    start
        Where a chain starts: at random weights, or near a mode, where a short training from there ends. With a step
        that is stable near a mode it would take long to get to one.
    execution
        Chains one after the other in this process, all of them batched in one pass, or each in a process of its own;
        "auto" takes a few steps of each to see which is fastest here.
    seed
        Key of everything random.
    precision
        Of the networks' passes while chains run: "bfloat16" is autocast, with weights and momenta in float32.
    compile_network
        Compile those passes with torch.compile: minutes at the start, for long runs; CUDA graphs on a GPU.
    device
        "cpu" or a CUDA device; under `torchrun`, "cuda" is that of the local rank.
    control
        What to train beside the chains, in as many networks, each with the gradient evaluations of one chain: "sgd" or
        "adamw", dense and then (where the run prunes in the chain) under gradual magnitude pruning; or your own as
        "package.module:callable", which makes of this run and a chain's number what
        `baselines.dense.DenseThenGradual` is.
    evaluate
        The split of the final table: "validation" while choices are still being made, "test" once.
    ood
        Images that should look foreign, told from that split's by the entropy of the prediction: "svhn",
        "cifar10-c:CORRUPTION:SEVERITY", "idx" (MNIST's file format), or the name of another data set.
    ood_dir
        Folder with their files.
    probes
        Examples whose outputs and log-likelihood are stored with every draw: of the official training set, the same for
        every seed and validation split (the store says which of them the run holds out).
    tensorboard
        Write the numbers of `progress/` for TensorBoard, too: pip install ".[tensorboard]", and then
        tensorboard --logdir RUN/progress.
    keep_weight_draws
        Keep the full weight draws after the evaluation; their size is estimated before the run starts.
    checkpoint_seconds
        Time between two resume points.
    keep_checkpoints
        Resume points that are kept; an earlier one serves when the newest is damaged.
    ranks_per_chain
        Processes of `torchrun` that share one chain; by default all of them.
    rank_timeout
        Seconds after which a rank that hears nothing from another of its chain gives up.
    """

    preset: str = "demo"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    likelihood: str = "categorical"
    likelihood_options: tuple[str, ...] = ()
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    em: EMSettings = field(default_factory=EMSettings)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    prune: PruneConfig = field(default_factory=PruneConfig)
    chains: int = 2
    start: Literal["random", "trained"] = "random"
    execution: Literal["auto", "loop", "batched", "processes"] = "loop"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile_network: bool = False
    seed: int = 0
    device: str = "cpu"
    control: str | None = None
    evaluate: Literal["test", "validation"] = "test"
    ood: str | None = None
    ood_dir: Path | None = None
    probes: int = 64
    tensorboard: bool = False
    keep_weight_draws: bool = False
    checkpoint_seconds: float = 20.0
    keep_checkpoints: int = 2
    ranks_per_chain: int | None = None
    rank_timeout: float = 600.0

    def __post_init__(self) -> None:
        check_types(self, type(self))
        self._check_sampling()
        self._check_execution()
        self._check_pruning()
        for where, kind, name in self.choices():
            choices.check(kind, name, where)
        for part, own in OTHERS.items():
            settings = getattr(self, part)
            known = {f.name for f in dataclasses.fields(settings)} | set(own)
            for name in choices.options(settings.options, f"{part}.options"):
                require(name not in known, f"{part}.options has {name}, which is a setting of the run's own")

    def _check_sampling(self) -> None:
        """Chains, their data and their lengths."""
        require(1 <= self.chains < 2**16, f"chains is {self.chains}; a run needs 1 to {2**16 - 1}")
        require(0 <= self.seed < 2**48, f"seed is {self.seed}; choose 0 to 2^48 - 1")
        require(self.sampler.temperature >= 0, f"sampler.temperature is {self.sampler.temperature}; it must be >= 0")
        require(0 <= self.sampler.momentum < 1, f"sampler.momentum is {self.sampler.momentum}; it must be in [0, 1)")
        for part, lengths in (("schedule", self.schedule), ("prune", self.prune)):
            for name, value in vars(lengths).items():
                require(not isinstance(value, float) or value >= 0, f"{part}.{name} is {value}; it must be >= 0 epochs")
        require(self.prior.indicator_every >= 1, "prior.indicator_every must be at least 1 step")
        require(self.data.workers >= 1, f"data.workers is {self.data.workers}; reading takes at least one thread")
        require(self.data.batch_size >= 1, f"batch_size is {self.data.batch_size}; it must be at least 1")
        require(self.probes >= 1, f"probes is {self.probes}; it must be at least 1")
        if self.evaluate == "validation":
            require(self.data.validation > 0, "evaluate is 'validation' but data.validation is 0; hold some images out")

    def _check_execution(self) -> None:
        """Processes, ranks and checkpoints."""
        require(self.checkpoint_seconds >= 0, f"checkpoint_seconds is {self.checkpoint_seconds}; it must be >= 0")
        require((self.ranks_per_chain or 1) >= 1, f"ranks_per_chain is {self.ranks_per_chain}; it must be at least 1")
        require(self.rank_timeout > 0, f"rank_timeout is {self.rank_timeout}; it must be > 0 seconds")
        require(self.keep_checkpoints >= 1, f"keep_checkpoints is {self.keep_checkpoints}; it must be at least 1")
        batched = self.execution in ("auto", "batched")
        require(
            not batched or self.keep_checkpoints >= 2,
            f"keep_checkpoints is {self.keep_checkpoints}; batched chains resume at a step that all have: keep 2",
        )
        require(not self.prune.cut or bool(self.prune.in_chain), "prune.cut cuts forks, and prune.in_chain names none")
        alone = not batched and self.ranks_per_chain in (None, 1)
        require(
            not self.prune.cut or alone,
            "prune.cut needs a chain to itself: set execution to loop or processes, and ranks_per_chain to 1",
        )

    def _check_pruning(self) -> None:
        """Targets, criteria and decisions."""
        p = self.prune
        require(0 < p.fdr < 1, f"prune.fdr is {p.fdr}; it must be inside (0, 1)")
        require(0 < p.growth <= 1, f"prune.growth is {p.growth}; it must be in (0, 1]")
        require(p.cycles >= 1, f"prune.cycles is {p.cycles}; a target needs at least one")
        require(
            p.stages >= 1 and p.curvature_examples >= 1,
            f"prune.stages is {p.stages} and prune.curvature_examples {p.curvature_examples}; both must be at least 1",
        )
        require(
            list(p.targets) == sorted(set(p.targets)) and all(0 < t < 1 for t in p.targets),
            f"prune.targets are {p.targets}; give increasing sparsities inside (0, 1)",
        )
        for where, criteria in (("post_hoc", p.post_hoc), ("in_chain", p.in_chain)):
            require(
                len(set(criteria)) == len(criteria), f"prune.{where} names a criterion twice: {', '.join(criteria)}"
            )
        if "loss_budget" in p.decisions:
            require(0 < p.loss_budget < math.inf, f"prune.loss_budget is {p.loss_budget}; it must be finite and > 0")
            require(
                self.data.validation > 1,
                f"decision loss_budget needs held-out examples, and data.validation is {self.data.validation}; hold "
                "two or more out (a posterior of `sample` has none)",
            )

    def choices(self) -> list[tuple[str, str, str]]:
        """Setting, kind and name of every choice that is made by name."""
        return [
            ("data.name", "data set", self.data.name),
            ("model.name", "network", self.model.name),
            ("likelihood", "likelihood", self.likelihood),
            ("prior.family", "prior", self.prior.family),
            ("sampler.name", "sampler", self.sampler.name),
            ("sampler.preconditioner", "mass matrix", self.sampler.preconditioner),
            ("prune.growth_schedule", "growth", self.prune.growth_schedule),
            *(("control", "control", name) for name in (self.control,) if name is not None),
            ("prune.curvature", "curvature", self.prune.curvature),
            *(("prune.post_hoc", "criterion", name) for name in self.prune.post_hoc),
            *(("prune.in_chain", "criterion", name) for name in self.prune.in_chain),
            *(("prune.decisions", "decision", name) for name in self.prune.decisions),
        ]


@dataclass(frozen=True, kw_only=True)
class NetworkChoice:
    """Which pruned network of a run.

    Parameters
    ----------
    when
        Pruned in the chain, or post hoc.
    criterion
        By default the run's first.
    decision
        "target", or one of the run's decisions without a target, such as "median" or "fdr", post hoc alone.
    target
        By default the run's largest that starves no layer in any chain.
    chain
        Every chain has its own mask.
    network
        "mean" of the draws of the chain's last cycle under the mask, or "distilled": that network, trained on under its
        mask to predict as all draws of all chains do together.
    epochs
        Passes over the training data of "distilled".
    """

    when: Literal["in_chain", "post_hoc"] = "in_chain"
    criterion: str | None = None
    decision: str = "target"
    target: float | None = None
    chain: int = 0
    network: Literal["mean", "distilled"] = "mean"
    epochs: float = 10.0

    def __post_init__(self) -> None:
        check_types(self, NetworkChoice)
        require(0 < self.epochs < math.inf, f"epochs is {self.epochs}; it must be a number above 0")
        idle = self.network != "distilled" and self.epochs != NetworkChoice.epochs
        require(not idle, f"epochs is {self.epochs}, and network {self.network} is not trained; ask for distilled")
