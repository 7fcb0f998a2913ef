"""The UCI regression of `experiments.ours.uci` again, in plain torch and without this library: reads the files itself.

AdamW networks that stop early, an ensemble of four, and four full-batch SGHMC chains under the spike-and-slab prior
with its indicators summed out. With g the gradient of U / N, of a step l and a momentum beta:

    m <- beta m - l g + sqrt(2 l (1 - beta) / N) xi,    w <- w + m.

    python experiments/ours/uci_plain.py UCI_Datasets concrete 0 1 2 >> experiments/ours/results/uci_plain.jsonl

The sampler and the prior are those that `sample` had when this was run: SGHMC with momentum 0.97 at a tenth of the
stability limit (`results/uci_steps.json`), a slab over the median fan-in, a spike of a fiftieth. It has others now.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

STEPS, FIT, MEMBERS, WIDTH, BETA = 6000, 1500, 4, 50, 0.97
LOG_TAU = math.log(2 * math.pi)


def read(root: Path, name: str, split: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], float]:
    folder = root / name / "data"
    table = np.loadtxt(folder / "data.txt")
    x = table[:, np.loadtxt(folder / "index_features.txt").astype(int)]
    y = table[:, int(np.loadtxt(folder / "index_target.txt"))]
    rows = [np.loadtxt(folder / f"index_{part}_{split}.txt").astype(int) for part in ("train", "test")]
    xm, xs, ym, ys = x[rows[0]].mean(0), x[rows[0]].std(0), y[rows[0]].mean(), y[rows[0]].std(ddof=1)
    xs[xs == 0] = 1
    train, test = ((torch.tensor((x[r] - xm) / xs).float(), torch.tensor((y[r] - ym) / ys).float()) for r in rows)
    return train, test, float(ys)


def make(inputs: int) -> tuple[nn.Module, nn.Parameter]:
    return nn.Sequential(nn.Linear(inputs, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1)), nn.Parameter(torch.zeros(()))


def nll(net: nn.Module, log_noise: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return ((y - net(x).squeeze(1)).square() * torch.exp(-2 * log_noise) / 2 + log_noise + LOG_TAU / 2).mean()


def adamw(net: nn.Module, log_noise: nn.Parameter, train: tuple[Tensor, Tensor], steps: int, cosine: bool):  # type: ignore[no-untyped-def]
    optimiser = torch.optim.AdamW([*net.parameters(), log_noise], lr=1e-2, weight_decay=1e-2)
    for step in range(steps):
        if cosine:
            optimiser.param_groups[0]["lr"] = 1e-2 * (1 + math.cos(math.pi * step / steps)) / 2
        optimiser.zero_grad()
        nll(net, log_noise, *train).backward()
        optimiser.step()
        yield step


def early(train: tuple[Tensor, Tensor], test: Tensor, steps: int) -> tuple[Tensor, float]:
    order = torch.randperm(len(train[1]))
    held, rest = order[: len(order) // 10], order[len(order) // 10 :]
    net, log_noise = make(train[0].shape[1])
    best, found = math.inf, (torch.zeros(0), 0.0)
    for step in adamw(net, log_noise, (train[0][rest], train[1][rest]), steps, cosine=True):
        if (step + 1) % (steps // 100) == 0:
            with torch.no_grad():
                loss = float(nll(net, log_noise, train[0][held], train[1][held]))
                if loss < best:
                    best, found = loss, (net(test).squeeze(1), float(log_noise))
    return found


def chain(train: tuple[Tensor, Tensor], test: Tensor, lr: float, slab: float) -> list[tuple[Tensor, float]]:
    net, log_noise = make(train[0].shape[1])
    for _ in adamw(net, log_noise, train, FIT, cosine=False):
        pass
    n, parameters = len(train[1]), [*net.parameters(), log_noise]
    momenta, steps, draws = [torch.zeros_like(p) for p in parameters], STEPS - FIT * (MEMBERS + 1) // MEMBERS, []
    for step in range(steps):
        prior = torch.zeros(())
        for p in parameters:
            if p.ndim > 1:  # half spike, half slab, summed out
                parts = [-p.square() / (2 * v) - math.log(v) / 2 for v in (slab, slab / 50)]
                prior = prior + torch.logaddexp(*parts).sum()
            else:
                prior = prior - p.square().sum() / 2
        gradients = torch.autograd.grad(nll(net, log_noise, *train) - prior / n, parameters)
        with torch.no_grad():
            for p, m, g in zip(parameters, momenta, gradients, strict=True):
                m.mul_(BETA).sub_(lr * g).add_(torch.randn_like(p), alpha=math.sqrt(2 * lr * (1 - BETA) / n))
                p.add_(m)
            if step >= steps // 4 and step % ((steps - steps // 4) // 100) == 0:
                draws.append((net(test).squeeze(1), float(log_noise)))
    return draws


def score(members: list[tuple[Tensor, float]], y: Tensor, unit: float) -> dict[str, float]:
    means = torch.stack([mean for mean, _ in members]).double()
    noise = torch.tensor([s for _, s in members]).double()[:, None]
    density = -((y - means) * torch.exp(-noise)).square() / 2 - noise - LOG_TAU / 2
    mixture = density.logsumexp(0) - math.log(len(members))
    return {
        "rmse": unit * float((means.mean(0) - y).square().mean().sqrt()),
        "nll": float(-mixture.mean()) + math.log(unit),
    }


def main(root: str, name: str, *splits: str) -> None:
    torch.set_num_threads(1)
    lrs = json.loads((Path(__file__).parent / "results" / "uci_steps.json").read_text())
    for split in map(int, splits):
        torch.manual_seed(split)
        train, (x, y), unit = read(Path(root), name, split)
        slab = min(max(2 / np.median([train[0].shape[1], WIDTH]), 0.005), 0.5)
        found = {
            "single": [early(train, x, MEMBERS * STEPS)],
            "ensemble": [early(train, x, STEPS) for _ in range(MEMBERS)],
            "posterior": [d for _ in range(MEMBERS) for d in chain(train, x, lrs[name][split], float(slab))],
        }
        for method, members in found.items():
            print(json.dumps({"set": name, "split": split, "method": method, **score(members, y, unit)}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("give the folder of the sets, the name of a set, and splits: UCI_Datasets concrete 0 1 2")
    main(*sys.argv[1:])
