"""The variational families on images: accuracy, NLL, ECE by each predictor, kept nodes, parameters and multiply-adds.

    python -m experiments.jantre.images --network mlp --epochs 1200 --seeds 0 1 2   (Fashion-MNIST, 784-400-400-10)
    python -m experiments.jantre.images --network lenet-caffe --epochs 1200 --seeds 0 1 2 --data mnist --data-dir DIR
    python -m experiments.jantre.images --network resnet20 --data cifar10 --data-dir DIR --epochs 300 \
        --batch 128 --device cuda

SiLU, slab N(0, 1) (ResNets: 0.2), Adam 1e-3 on a cosine, batch 1024. Node gates under the layer-adaptive prior
inclusion of the first paper for the MLP, 1e-4 on residual networks, 1 / nodes elsewhere; weight gates under the rule
of SVBNN. Choices are made on 10,000 held-out training images; `--test` trains on all and reads the test set once, at
the end.

The authors' logs (one seed, 1200 epochs, Fashion-MNIST) give SS-IG 84.5 % (MLP, 9 % of the multiply-adds) and 87.7 %
(their LeNet), SVBNN 84.8 % and 87.9 %, dense mean field 87.6 % and 90.5 %; for ResNet-20 on CIFAR-10 (three seeds)
SS-IG 92.9 %, SS-GL 93.1 %, SS-GHS 93.0 %, with all nodes of the residual stream gated, which is not comparable with
the inner channels gated here.

With little data and few epochs that recipe only closes gates (LeNet, 12,000 images, 8 epochs: all 120 nodes of its
third layer): the KL of narrow factors from a wide slab is several nats per weight, and closing nodes is the fastest way
to lower it. With `--warm-up 0.5 --std-lr 1e-2 --gate-lr 3e-2 --lr 3e-3 --batch 256` the same priors train; these rates
were chosen on held-out images.

Measured at these rates: `--network lenet --epochs 20 --test`, three seeds (`results/jantre_lenet_fashion-mnist.md`).
The runs of 1200 epochs and those on CIFAR-10 are owed.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments import shared
from sgmcmc_prune import data as datasets
from sgmcmc_prune import models
from sgmcmc_prune.baselines.variational import (
    Settings,
    Structured,
    bayesianise,
    fit,
    jantre_inclusion,
    mean_field,
    predictors,
    ss_ghs,
    ss_gl,
    ss_ig,
    svbnn,
    svbnn_inclusion,
)
from sgmcmc_prune.cells import Records, product
from sgmcmc_prune.data.image_data import Images, hold_out, normalise
from sgmcmc_prune.predictive.flops import multiply_adds
from sgmcmc_prune.predictive.metrics import summarise
from sgmcmc_prune.pruning.shrink import shrink
from sgmcmc_prune.run.export import latency

ABOUT = """Accuracy, NLL, ECE of draws averaged (Monte Carlo), and of the one network of the kept nodes' means (pruned).
What the pruned network has left of the dense one's parameters, multiply-adds and time of a pass (one example, 128).
The nodes, by SVBNN the weights, that are kept in each layer. Written by `python -m experiments.jantre.images`."""
HEADER = (
    *("family", "seeds", "accuracy", "NLL", "ECE", "pruned: accuracy", "NLL", "ECE", "parameters", "multiply-adds"),
    *("time, 1", "time, 128", "kept"),
)
FAMILIES = ("mean_field", "ss_ig", "ss_gl", "ss_ghs", "svbnn")


class LeNetCaffe(nn.Sequential):
    """Two 5x5 convolutions (20, 50) with max-pooling, then 800-800-500: the papers' LeNet, 1,071,880 parameters."""

    def __init__(self, classes: int = 10) -> None:
        def stage(i: int, o: int) -> list[nn.Module]:
            return [nn.Conv2d(i, o, 5), nn.SiLU(), nn.MaxPool2d(2)]

        dense = [nn.Linear(800, 800), nn.SiLU(), nn.Linear(800, 500), nn.SiLU(), nn.Linear(500, classes)]
        super().__init__(*stage(1, 20), *stage(20, 50), nn.Flatten(), *dense)


def build_network(name: str, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """The network at its random start."""
    if name == "lenet-caffe":
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return LeNetCaffe(classes)
    options = {"activation": "silu"} if name == "mlp" else {}
    return models.build(name, shape, classes, seed=seed, **options)


def build_family(family: str, network: str, model: nn.Module, num_data: int, std: float) -> Structured:
    """A family with the priors described above, and a slab N(0, std^2)."""
    if family == "mean_field":
        return mean_field(prior_std=std)
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    widths = [800, 800, 500, 10]  # of the papers' LeNet
    if network == "mlp":
        widths = [*(layer.in_features for layer in linear), linear[-1].out_features]
    if family == "svbnn":
        return svbnn(prior_std=std, inclusion=svbnn_inclusion(widths, num_data))
    groups = bayesianise(model, ss_ig()).log_odds()[1]
    inclusion = {name.removesuffix(".weight"): 1 / group.num_groups for name, group in groups.items()}
    if network == "mlp":
        inclusion = dict(zip(inclusion, jantre_inclusion(widths, num_data), strict=True))
    if network.startswith("resnet"):
        inclusion = dict.fromkeys(inclusion, 1e-4)
    make = {"ss_ig": ss_ig, "ss_gl": ss_gl, "ss_ghs": ss_ghs}[family]
    learned = {"regulariser": "learned"} if family == "ss_ghs" else {}
    return make(prior_std=std, inclusion=inclusion, **learned)


def load(name: str, folder: str | None) -> Any:
    """A data set of the library, or MNIST from its files."""
    return datasets.load(f"idx:{folder}") if name == "mnist" else datasets.load(name, folder and Path(folder))


def tensors(images: Images, dataset: Any, device: str) -> tuple[Tensor, Tensor]:
    """Network inputs and labels."""
    return normalise(images.images, dataset.mean, dataset.std).to(device), images.labels.to(device)


def run(family: str, seed: int, **options: Any) -> dict[str, Any]:
    """One family, one seed: what is measured, JSON-ready."""
    args = argparse.Namespace(**options)
    dataset, whole = load(args.data, args.data_dir), args.split == "test"
    train, held = (dataset.train, dataset.test) if whole else hold_out(dataset.train, args.validation, seed)
    data, (inputs, labels) = tensors(train, dataset, args.device), tensors(held, dataset, args.device)
    model = build_network(args.network, tuple(data[0].shape[1:]), dataset.num_classes, seed).to(args.device)
    steps = round(args.epochs * len(data[1]) / args.batch)
    settings = Settings(
        build_family(family, args.network, model, len(data[1]), args.prior_std),
        steps,
        args.batch,
        lr=args.lr,
        gate_lr=args.gate_lr,
        std_lr=args.std_lr,
        warm_up=args.warm_up,
        seed=seed,
        on_empty="warn",
        trace_every=max(1, steps // 50),
        bound_draws=4,
        draws=args.members,
    )
    fitted = fit(model, data, settings)
    small, started = shrink(fitted.pruned().model, {}, inputs[:2]).model.eval(), time.perf_counter()
    return {
        "predictors": {how: summarise(each.predict(inputs), labels) for how, each in predictors(fitted).items()},
        "predict_seconds": time.perf_counter() - started,
        "kept": fitted.kept_groups(seed) if family != "mean_field" else {},
        "inclusion": {n: g.tolist() for n, g in fitted.inclusion().items()} if family.startswith("ss") else {},
        "parameters": models.num_parameters(small) / models.num_parameters(model),
        "weights_kept": sum(int((p != 0).sum()) for p in small.parameters()) / models.num_parameters(model),
        "multiply_adds": multiply_adds(small, inputs) / multiply_adds(model, inputs),
        "latency": {size: latency(model.eval(), small, inputs[:size]) for size in (1, 128)},
        "gradient_evaluations": fitted.cost.gradient_evaluations,
        "seconds": fitted.cost.seconds,
        "bound": fitted.bound,
        "trace": fitted.history,
    }


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """The settings of a command line."""
    parser = shared.parser(__doc__, range(3), __file__)
    parser.add_argument("--network", default="mlp", help="mlp, lenet, lenet-caffe, resnet20, resnet32")
    parser.add_argument("--data", default="fashion-mnist", help="a data set of the library, or mnist with --data-dir")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--epochs", type=float, default=1200)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--prior-std", type=float, help="of the slab; the papers' by default")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--gate-lr", type=float, help="--lr by default")
    parser.add_argument("--std-lr", type=float, help="of standard deviations; --lr by default")
    parser.add_argument("--warm-up", type=float, default=0.0, help="fraction of the steps in which the KL fades in")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--validation", type=int, default=10_000)
    parser.add_argument("--test", action="store_true", help="train on all images, read the test set")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    if args.data == "mnist" and args.data_dir is None:
        parser.error("--data mnist needs --data-dir, the folder with its four idx files")
    args.prior_std = args.prior_std or (0.2 if args.network.startswith("resnet") else 1.0)
    return args


def main(argv: list[str] | None = None) -> None:
    """Run every family on every seed; print and write the results."""
    args = options(argv)
    where = ("families", "seeds", "jobs", "out", "test", "device", "data_dir")
    settings = {name: value for name, value in vars(args).items() if name not in where}
    settings["split"] = "test" if args.test else "validation"
    places = {"device": args.device, "data_dir": args.data_dir and str(args.data_dir)}
    cells = product(run, {"family": args.families, "seed": args.seeds}, settings, places)
    results = args.out / f"jantre_{args.network}_{args.data}.json"
    runs = shared.complete(Records(cells, results), args.jobs, _line, device=args.device)
    heading = f"# {args.network} on {args.data}, {args.epochs:g} epochs, {settings['split']} examples"
    results.with_suffix(".md").write_text(f"{heading}\n\n{ABOUT}\n\n{table(runs)}\n", encoding="utf-8")


def table(runs: list[dict[str, Any]]) -> str:
    """A row for each family: means over seeds with their 95 % intervals."""
    rows = []
    for family in dict.fromkeys(run["family"] for run in runs):
        own = [run for run in runs if run["family"] == family]
        row = [family, str(len(own))]
        for how in ("monte_carlo", "median_mean"):
            row += shared.scores([run["predictors"][how] for run in own], ("accuracy", "nll", "ece"))
        row += [shared.interval([run[name] for run in own], 3) for name in ("parameters", "multiply_adds")]
        row += [shared.interval([r["latency"][size]["ratio"]["median"] for r in own], 2) for size in ("1", "128")]
        kept = zip(*(run["kept"].values() for run in own), strict=True) if own[0]["kept"] else ()
        row.append(" ".join(f"{statistics.fmean(nodes for _, nodes, _ in layer):.0f}" for layer in kept))
        rows.append(row)
    return shared.markdown(HEADER, rows)


def _line(r: dict[str, Any]) -> str:
    single, mixture = r["predictors"]["median_mean"], r["predictors"]["monte_carlo"]
    return (
        f"{r['family']}, seed {r['seed']}: {r['split']} accuracy {mixture['accuracy']:.4f} Monte Carlo, "
        f"{single['accuracy']:.4f} pruned (NLL {mixture['nll']:.3f}, {single['nll']:.3f}; ECE {mixture['ece']:.3f}, "
        f"{single['ece']:.3f}); parameters {r['parameters']:.3f}, multiply-adds {r['multiply_adds']:.3f}; kept "
        f"{r['kept']}; {r['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
