"""What the three variable-selection examples of Ke and Fan share: one run, its two controls, the table and the file.

A run has two stages of one chain. *Select*: SGHMC on the network with all inputs, under a spike-and-slab prior with one
group per input. EM starts `em_start` steps into the burn-in (earlier no input has left its initial size, and EM would
empty the slab); then draws give inclusion probabilities, and the median probability model removes inputs for good.
*Refine*: the removed columns are cut out of data and network, the momentum is drawn afresh, and the chain goes on (of
several `starts`, the one with the lowest training loss after its burn-in); each cycle ends with another decision, which
may remove more, and the draws of the last cycle give the predictive. Inputs share a factor, so the curvature grows with
their number k: a step of `lr` for all P inputs allows min(lr P / k, lr_refine) for k.

Controls: `no EM` is the Gaussian prior N(0, slab variance) with the decision taken at the starting hyperparameters; `no
noise` is the same EM and decision at temperature 0. `true inputs` is the refine stage alone, given the true inputs.
"""

import dataclasses
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments import shared
from sgmcmc_prune.cells import Record, Records, product
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.data import MinibatchStream
from sgmcmc_prune.data.simulated import DESIGNS, Design, simulate
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.likelihoods import Likelihood, bernoulli, gaussian
from sgmcmc_prune.models import build
from sgmcmc_prune.priors import GroupMap, SpikeSlab
from sgmcmc_prune.priors.em import EM
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.priors.spike_slab import Layer, Mode, smallest_stable_spike
from sgmcmc_prune.pruning.decision import median_probability_model
from sgmcmc_prune.samplers import SGHMC
from sgmcmc_prune.settings import require
from sgmcmc_prune.store.files import atomic_path, read_json
from sgmcmc_prune.text_table import format_rows

METHODS = ("ours", "no EM", "no noise", "true inputs")
LAYER = "layers.0.weight"
TRACE_EVERY = 10


@dataclass(frozen=True)
class Settings:
    """One example: the design, the network, the prior at the start, and the two stages (lengths in steps)."""

    design: Design
    widths: tuple[int, ...]
    lr: float
    lr_refine: float
    burn_in: int
    em_start: int = 200
    sample: int = 100
    refine_burn_in: int = 800
    refine_cycles: int = 2
    refine_explore: int = 200
    refine_sample: int = 200
    starts: int = 1
    explore_ratio: float = 0.4
    friction_ratio: float = 5.0
    momentum: float = 0.9
    num_train: int = 10240
    num_test: int = 1024
    batch_size: int = 1024
    inclusion_rate: float = 0.5
    spike_variance: float = 1e-3
    slab_variance: float = 0.1

    @property
    def likelihood(self) -> Likelihood:
        """Logistic, or Gaussian with the known noise variance 1."""
        return bernoulli if self.design.binary else gaussian(variance=1.0)

    @property
    def hyperparameters(self) -> dict[str, float]:
        """Where EM starts, and where the control without EM stays."""
        return {name: getattr(self, name) for name in ("inclusion_rate", "spike_variance", "slab_variance")}

    def tiny(self) -> "Settings":
        """The same run in a second or two: forty inputs and few steps."""
        return dataclasses.replace(
            self,
            design=dataclasses.replace(self.design, num_inputs=40),
            num_train=1024,
            num_test=256,
            batch_size=256,
            burn_in=60,
            em_start=20,
            sample=20,
            refine_burn_in=20,
            refine_cycles=2,
            refine_explore=10,
            refine_sample=20,
        )


@dataclass
class Trace:
    """What is written down every few steps, and at each decision."""

    rows: list[list[float]] = dataclasses.field(default_factory=list)
    loss: float = 0.0
    steps: int = 0

    def record(self, chain: Chain, kept: int) -> None:
        """Smooth the minibatch loss; keep a row (step, loss, kept inputs, pi, v0, v1) every few steps."""
        self.steps += 1
        self.loss = 0.9 * self.loss + 0.1 * chain.loss if self.steps > 1 else chain.loss
        if self.steps % TRACE_EVERY == 0:
            layer = sparse_layer(chain)
            hyper = (layer.inclusion_rate, layer.spike_variance, layer.slab_variance)
            self.rows.append([self.steps, kept, *(float(f"{v:.4g}") for v in (self.loss, *hyper))])


def spike_slab(chain: Chain) -> SpikeSlab:
    """The prior of a chain made here."""
    assert isinstance(chain.prior, SpikeSlab)
    return chain.prior


def sparse_layer(chain: Chain) -> Layer:
    """The first layer's groups and hyperparameters."""
    return spike_slab(chain).layers[LAYER]


def make_chain(
    s: Settings,
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    schedule: Cyclical,
    seed: int,
    mode: Mode,
    hyper: dict[str, float],
) -> Chain:
    """A chain on all columns of `data`; `hyper` are the prior's hyperparameters."""
    parameters = dict(model.named_parameters())
    group = {LAYER: GroupMap("input", tuple(parameters[LAYER].shape))}
    prior = SpikeSlab(parameters, group=group, mode=mode, seed=seed, **hyper)  # type: ignore[arg-type]
    sampler = SGHMC(
        model.named_parameters(),
        lr=schedule.lr,
        momentum=schedule.momentum,
        num_data=len(data[0]),
        temperature=schedule.temperature,
        prior=prior,
        seed=seed,
    )
    stream = MinibatchStream(*data, s.batch_size, seed, 0)
    return Chain(0, model, sampler, schedule, stream, s.likelihood)


def select(s: Settings, data: tuple[Tensor, Tensor], seed: int, method: str, trace: Trace) -> Chain:
    """Stage one: adapt, then draw; returns the chain after its draws on all inputs."""
    model = build("mlp", (s.design.num_inputs,), 1, seed=seed, widths=s.widths)
    schedule = Cyclical(
        lr=s.lr,
        lr_explore=s.lr / s.friction_ratio,
        lr_min=s.lr / s.friction_ratio,
        momentum=s.momentum,
        temperature=0.0 if method == "no noise" else 1.0,
        burn_in=s.burn_in,
        cycles=1,
        explore=0,
        sample=s.sample,
        relax=s.sample // 5,
        thin=4,
    )
    # In mode "em" without EM steps every group is held in the slab: a Gaussian prior.
    mode: Mode = "em" if method == "no EM" else "marginal"
    chain = make_chain(s, model, data, schedule, seed, mode, s.hyperparameters)
    settings = EMSettings(every=10, complexity=1.0)
    em = EM(settings, spike_slab(chain), smallest_stable_spike(s.lr, len(data[0]), 1.0, s.momentum))
    while not chain.finished:
        plan = chain.advance()
        # By hand rather than by the chain, which runs EM at draws only: the control without noise needs it too.
        adapting = method != "no EM" and plan.phase == "burn_in" and chain.step > s.em_start
        if adapting and chain.step % settings.every == 0:
            em.update(chain.parameters, 1.0)
        trace.record(chain, s.design.num_inputs)
    return chain


def decide(chain: Chain) -> Tensor:
    """The median probability model of the chain's draws: which inputs to keep, shape (inputs,).

    An input removed before stays removed.
    """
    layer = sparse_layer(chain)
    included = chain.inclusion[LAYER].included * layer.alive
    chain.set_mask(median_probability_model({LAYER: included}, {LAYER: layer.groups}))
    return layer.alive


def refine(
    s: Settings, data: tuple[Tensor, Tensor], test: Tensor, kept: Tensor, old: Chain | None, seed: int, trace: Trace
) -> tuple[Tensor, Tensor]:
    """Stage two on the kept inputs; returns the inputs kept in the end, and the predictive mean on `test`."""
    index = kept.nonzero().flatten()
    data, inputs = (data[0][:, index].contiguous(), data[1]), test[:, index]
    chain = best_start(s, data, index, old, seed, trace)
    draws, alive = [], torch.ones(len(index), dtype=torch.bool)
    while not chain.finished:
        plan = chain.advance()
        trace.record(chain, int(alive.sum()))
        if plan.collect and plan.cycle == s.refine_cycles:
            draws.append(predict(chain.model, inputs, s.design.binary))
        if plan.end_of_cycle:
            alive = decide(chain)
    final = torch.zeros_like(kept)
    final[index[alive]] = True
    return final, torch.stack(draws).mean(0)


def best_start(
    s: Settings, data: tuple[Tensor, Tensor], index: Tensor, old: Chain | None, seed: int, trace: Trace
) -> Chain:
    """Of chains after their burn-in, the one with the lowest training loss; the first starts where `old` ended."""
    best, best_trace = None, trace
    for start in range(s.starts):
        chain = refine_chain(s, data, index, old, seed, start)
        own = dataclasses.replace(trace, rows=list(trace.rows))
        for _ in range(s.refine_burn_in):
            chain.advance()
            own.record(chain, len(index))
        if best is None or own.loss < best_trace.loss:
            best, best_trace = chain, own
    assert best is not None
    trace.rows, trace.loss, trace.steps = best_trace.rows, best_trace.loss, best_trace.steps
    return best


def refine_chain(
    s: Settings, data: tuple[Tensor, Tensor], index: Tensor, old: Chain | None, seed: int, start: int
) -> Chain:
    """A chain on the inputs `index`, with the hyperparameters and (start 0) the weights of `old`."""
    model = build("mlp", (len(index),), 1, seed=seed + 1000 * start, widths=s.widths)
    hyper, temperature = s.hyperparameters, 1.0
    mode: Mode = "marginal"
    if old is not None:
        layer, state = sparse_layer(old), old.model.state_dict()
        hyper = {name: getattr(layer, name) for name in hyper}
        mode, temperature = spike_slab(old).mode, old.schedule.temperature
        if start == 0:
            model.load_state_dict({**state, LAYER: state[LAYER][:, index]})
    lr = max(s.lr, min(s.lr * s.design.num_inputs / len(index), s.lr_refine))
    schedule = Cyclical(
        lr=lr,
        lr_explore=lr * s.explore_ratio,
        lr_min=lr / s.friction_ratio,
        momentum=s.momentum,
        temperature=temperature,
        burn_in=s.refine_burn_in,
        cycles=s.refine_cycles,
        explore=s.refine_explore,
        sample=s.refine_sample,
        relax=s.refine_sample // 5,
        thin=5,
    )
    # Another seed: the noise and minibatches of stage one are not to be used again.
    chain = make_chain(s, model, data, schedule, seed + 10_000 * (start + 1), mode, hyper)
    assert isinstance(chain.sampler, SGHMC)
    chain.sampler.sample_momentum()
    return chain


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor, binary: bool) -> Tensor:
    """Mean of the target, shape (n,)."""
    outputs = model(inputs).flatten()
    return outputs.sigmoid() if binary else outputs


def score(prediction: Tensor, targets: Tensor, binary: bool) -> float:
    """Accuracy of a binary target, mean squared error otherwise."""
    if binary:
        return float(((prediction > 0.5) == (targets > 0.5)).float().mean())
    return float((prediction - targets).square().mean())


def run(method: str, seed: int, head: Record) -> Record:
    """One method on one simulated data set: what is measured, JSON-ready; `head` is that of the results file."""
    s = settings_of(head)
    started, cpu = time.perf_counter(), time.process_time()
    data = simulate(s.design, s.num_train, seed)
    test, test_targets = simulate(s.design, s.num_test, seed, "test")
    support = torch.zeros(s.design.num_inputs, dtype=torch.bool)
    support[list(s.design.support)] = True
    trace, old, kept = Trace(), None, support
    result: Record = {}
    prediction = data[1].mean().expand(len(test_targets))  # what a network without inputs can say
    try:
        if method != "true inputs":
            kept = torch.zeros_like(support)
            old = select(s, data, seed, method, trace)
            result["selection"] = describe_selection(old, support)
            kept = decide(old).clone()
        if kept.any():
            kept, prediction = refine(s, data, test, kept, old, seed, trace)
    except RunError as error:  # a chain that diverges is a result, too
        result["diverged"] = str(error)
    weights = support.numel() * s.widths[0]
    rest = sum(a * b for a, b in zip(s.widths, (*s.widths[1:], 1), strict=True))
    tp, fp = int((kept & support).sum()), int((kept & ~support).sum())
    return result | {
        "true_positives": tp,
        "false_positives": fp,
        "recovered": tp == len(s.design.support) and fp == 0,
        "kept": kept.nonzero().flatten().tolist()[:50],
        "sparsity": 1 - (int(kept.sum()) * s.widths[0] + rest) / (weights + rest),
        "score": score(prediction, test_targets, s.design.binary),
        "trace": trace.rows,
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def describe_selection(chain: Chain, support: Tensor) -> dict[str, Any]:
    """Inclusion and size of each input's weights at the first decision, and how many true inputs rank top by size."""
    mean, included = chain.moments[LAYER].mean, chain.inclusion[LAYER].included
    top = mean.square().sum(0).topk(int(support.sum())).indices
    return {
        "inclusion": _rounded(included),
        "mean_abs_weight": _rounded(mean.abs().mean(0)),
        "kept": int((included >= 0.5).sum()),
        "true_in_top": int(support[top].sum()),
    }


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{v:.3g}") for v in values.tolist()]


def table(runs: list[dict[str, Any]], binary: bool) -> str:
    """One row per method: exact recovery, selected inputs, sparsity, test score (median and range over seeds)."""
    score = "test accuracy" if binary else "test MSE"
    head, lines = ("method", "recovered", "TP", "FP", "sparsity", score, "top ranked", "CPU s"), []
    for method in METHODS:
        rows = [r for r in runs if r["method"] == method]
        if not rows:
            continue
        true, false = (" ".join(str(r[key]) for r in rows) for key in ("true_positives", "false_positives"))
        tops = " ".join(str(r["selection"]["true_in_top"]) for r in rows if "selection" in r)
        sparsities, scores = (sorted(r[key] for r in rows) for key in ("sparsity", "score"))
        middle, recovered = len(rows) // 2, f"{sum(r['recovered'] for r in rows)}/{len(rows)}"
        spread = f"{scores[middle]:.3f} ({scores[0]:.3f}-{scores[-1]:.3f})"
        seconds = f"{sum(r['cpu_seconds'] for r in rows) / len(rows):.0f}"
        lines.append((method, recovered, true, false, f"{sparsities[middle]:.4f}", spread, tops or "-", seconds))
    return format_rows(head, lines)


def head_of(s: Settings) -> Record:
    """What a results file says of its runs: design, settings and the version of torch."""
    settings = {k: v for k, v in dataclasses.asdict(s).items() if k != "design"}
    design = {k: getattr(s.design, k) for k in ("number", "num_inputs", "support", "binary")}
    head: Record = json.loads(json.dumps({"design": design, "settings": settings, "torch": torch.__version__}))
    return head


def settings_of(head: Record) -> Settings:
    """The settings that `head_of` described."""
    design = dataclasses.replace(DESIGNS[head["design"]["number"]], num_inputs=head["design"]["num_inputs"])
    return Settings(design, **{**head["settings"], "widths": tuple(head["settings"]["widths"])})


def read(path: Path, head: Record) -> list[Record]:
    """The runs of a results file, which must be of these settings."""
    content = read_json(path)
    other = [key for key in ("design", "settings") if content[key] != head[key]]
    require(not other, f"{path} is of another {' and other '.join(other)}; choose another --out")
    runs: list[Record] = content["runs"]
    return runs


def write(path: Path, runs: list[Record], head: Record) -> None:
    """Write a results file, one run a line; input-wise values and traces of the first seed only."""
    first = min(r["seed"] for r in runs)
    short = [r if r["seed"] == first else _without_vectors(r) for r in runs]
    body = ",\n".join(json.dumps(r, allow_nan=False, separators=(",", ":")) for r in short)
    with atomic_path(path) as temporary:
        temporary.write_text(f'{json.dumps(head)[:-1]}, "runs": [\n{body}\n]}}\n', encoding="utf-8")


def _without_vectors(run: dict[str, Any]) -> dict[str, Any]:
    selection = {k: v for k, v in run.get("selection", {}).items() if not isinstance(v, list)}
    return {k: v for k, v in run.items() if k != "trace"} | ({"selection": selection} if selection else {})


def main(s: Settings, argv: list[str] | None = None) -> None:
    """Run every method on every seed, print the table, write the results."""
    title = f"Example {s.design.number} of Ke and Fan: nonlinear variable selection"
    parser = shared.parser(title, range(10, 15), __file__)
    parser.epilog = "Seeds are those of simulated data sets; settings were chosen on 0 to 4."
    parser.add_argument("--control-seeds", type=int, nargs="*", help="those that controls run on, too: the first five")
    parser.add_argument("--tiny", action="store_true", help="a few inputs and steps, to see that it runs")
    args = parser.parse_args(argv)
    head = head_of(s.tiny() if args.tiny else s)
    controls = args.seeds[:5] if args.control_seeds is None else args.control_seeds
    if unknown := sorted(set(controls) - set(args.seeds)):
        parser.error(f"control seeds {unknown} are not among --seeds")
    places, path = {"head": head}, args.out / f"ke_fan_example{s.design.number}.json"
    cells = product(run, {"method": METHODS[:1], "seed": args.seeds}, places=places)
    cells += product(run, {"method": METHODS[1:], "seed": controls}, places=places)
    runs = shared.complete(Records(cells, path, partial(read, head=head), partial(write, head=head)), args.jobs)
    print(table(runs, s.design.binary))
    print(f"results: {path}")


def example(number: int, **settings: Any) -> Settings:
    """Settings of example 1, 2 or 3."""
    return Settings(design=DESIGNS[number], **settings)
