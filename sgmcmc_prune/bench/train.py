"""`bench train`: the whole training loop of a chain, and of each variational family, against the loop of plain SGD.

All see the same minibatches of random images through the same network; the chain also adapts its prior by EM, averages
nothing (it is in its burn-in), and is told its schedule at every step, as in a run. A measurement is a block of steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import torch
from torch import nn

from sgmcmc_prune import likelihoods, models
from sgmcmc_prune.baselines import variational
from sgmcmc_prune.baselines.variational.training import BoundTrainer
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.likelihoods import mean_nll
from sgmcmc_prune.machine import timing
from sgmcmc_prune.priors import SpikeSlab
from sgmcmc_prune.priors.em import EM
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.samplers import SGHMC
from sgmcmc_prune.samplers.tiers import Noise
from sgmcmc_prune.text_table import format_rows

FAMILIES = {
    **{name: getattr(variational, name)() for name in ("mean_field", "ss_ig", "ss_gl", "ss_ghs", "svbnn")},
    "continuous_spike": variational.ContinuousSpike(),
}
#: Shape of one image for each network, and the steps in one measurement on a CPU.
NETWORKS = {"lenet": ((1, 28, 28), 20), "mlp": ((1, 28, 28), 40), "resnet20": ((3, 32, 32), 1)}
#: Steps in one measurement on a GPU, at least.
ON_GPU = 20


def bench_train(
    networks: tuple[str, ...] = ("mlp", "lenet"),
    rounds: int = 31,
    batch_size: int = 128,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """Measure every network.

    Returns
    -------
    dict
        `machine` and `rows`, one per network and method (`sgd`, the chain by its noise, each variational family):
        images a second, and the ratio of its time to that of SGD with its 95 % interval (1.05: it takes 5 % longer).
    """
    rows = []
    for network in networks:
        shape, block = NETWORKS[network]
        block = block if device == "cpu" else max(block, ON_GPU)  # each measurement waits for the device once
        arguments = (network, shape, batch_size, device)
        candidates: dict[str, Callable[[], Any]] = {"sgd": sgd(*arguments)}
        candidates |= {f"chain, {noise}": chain(*arguments, noise=noise).advance for noise in get_args(Noise)}
        candidates |= {name: family(name, *arguments) for name in FAMILIES}
        seconds = timing.interleaved(
            {n: timing.block(step, block) for n, step in candidates.items()},
            rounds,
            2,
            f"bench train {network}",
            progress,
        )
        rows += [
            {
                "network": network,
                "method": name,
                "images_per_second": block * batch_size / sorted(seconds[name])[rounds // 2],
                "ratio_to_sgd": vars(timing.paired_ratio(seconds[name], seconds["sgd"])),
            }
            for name in candidates
        ]
    return {"bench": "train", "machine": timing.machine(), "batch_size": batch_size, "rounds": rounds, "rows": rows}


def _network(network: str, shape: tuple[int, ...], device: str) -> nn.Module:
    model = models.build(network, shape, 10, seed=0).to(device)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _stream(shape: tuple[int, ...], batch_size: int, device: str, index: int = 0) -> MinibatchStream:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20 * batch_size, *shape, generator=generator).to(device)
    labels = torch.randint(10, (len(images),), generator=generator).to(device)
    return MinibatchStream(images, labels, batch_size, 0, index)


def sgd(network: str, shape: tuple[int, ...], batch_size: int, device: str) -> Callable[[], Any]:
    """One step of the plainest loop."""
    model, stream = _network(network, shape, device), _stream(shape, batch_size, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    count = 0

    def step() -> None:
        nonlocal count
        inputs, targets = stream.batch(count)
        loss = mean_nll(likelihoods.categorical, model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        count += 1

    return step


def chain(
    network: str, shape: tuple[int, ...], batch_size: int, device: str, index: int = 0, noise: Noise = "gaussian"
) -> Chain:
    """A chain in its burn-in, with a marginal spike-and-slab prior and EM every 20 steps."""
    model, stream = _network(network, shape, device), _stream(shape, batch_size, device, index)
    prior = SpikeSlab(dict(model.named_parameters()))
    sampler = SGHMC(model.named_parameters(), lr=1e-3, num_data=stream.num_data, prior=prior, chain=index, noise=noise)
    schedule = Cyclical(1e-3, 1e-3, 1e-4, 0.9, 1.0, burn_in=10**6, cycles=1, explore=0, sample=1)
    return Chain(index, model, sampler, schedule, stream, likelihoods.categorical, EM(EMSettings(), prior))


def family(name: str, network: str, shape: tuple[int, ...], batch_size: int, device: str) -> Callable[[], Any]:
    """One step of a variational family."""
    settings = variational.Settings(FAMILIES[name], steps=10**6, batch_size=batch_size)
    counterpart = variational.bayesianise(_network(network, shape, device), settings.family)
    stream = _stream(shape, batch_size, device)
    return partial(BoundTrainer(counterpart, stream, likelihoods.categorical, settings).run, 1)


def table(result: dict[str, Any]) -> str:
    """The result as aligned text."""
    header = ("network", "method", "images/s", "time / SGD [95 %]")
    rows = [
        [r["network"], r["method"], f"{r['images_per_second']:,.0f}", str(timing.Ratio(**r["ratio_to_sgd"]))]
        for r in result["rows"]
    ]
    return format_rows(header, rows)
