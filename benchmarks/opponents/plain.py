"""Independent opponents in plain torch on Fashion-MNIST, nothing of the package used.

Gradual magnitude, AC/DC, RigL, SNIP, GraSP and SynFlow:

    python benchmarks/opponents/plain.py gradual-magnitude --network lenet --sparsity 0.95 --seeds 0 1 2 --data DIR

They are written from the papers, and read the idx files themselves. Budget: EPOCHS passes over 50,000 images in batches
of 128 (3,125 steps), SGD with momentum 0.9, a cosine; the last 10,000 training images are not used (with `--held-out
random` others for each seed; with `comparison` those that `sgmcmc-prune compare` holds out for it). One JSON line for
each seed goes to `plain.jsonl` beside this file. The other files of this folder take data, networks and scores from
here.
"""

import argparse
import copy
import gzip
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPOCHS, BATCH, TRAIN = 8, 128, 50_000
STEPS = round(EPOCHS * TRAIN / BATCH)


def idx(folder: Path, name: str) -> np.ndarray:
    """One idx file, compressed or not."""
    path = folder / name
    data = path.read_bytes() if path.is_file() else gzip.decompress(path.with_name(f"{name}.gz").read_bytes())
    dims = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(dims)).reshape(dims)


def used(held_out: str, seed: int) -> Tensor:
    """Which 50,000 training images are used."""
    if held_out == "last":
        return torch.arange(TRAIN)
    if held_out == "random":
        return torch.randperm(60_000, generator=torch.Generator().manual_seed(1000 + seed))[:TRAIN]
    key = int.from_bytes(hashlib.blake2b(f"hold_out:{seed}".encode(), digest_size=8).digest(), "little")
    return torch.randperm(60_000, generator=torch.Generator().manual_seed(key))[-TRAIN:].sort().values


def load(folder: Path, held_out: str = "last", seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Standardised training images that are used, and test images, with their labels."""
    parts = []
    for part in ("train", "t10k"):
        images = torch.from_numpy(idx(folder, f"{part}-images-idx3-ubyte").copy()).float()[:, None] / 255
        labels = torch.from_numpy(idx(folder, f"{part}-labels-idx1-ubyte").copy()).long()
        parts += [(images - 0.2860) / 0.3530, labels]
    which = used(held_out, seed)
    return parts[0][which], parts[1][which], parts[2], parts[3]


class LeNet(nn.Module):
    """LeNet-5: tanh and average pooling, 61,706 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5), nn.Conv2d(16, 120, 5)
        self.f1, self.f2 = nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.c1(x).tanh(), 2)
        x = F.avg_pool2d(self.c2(x).tanh(), 2)
        return self.f2(self.f1(self.c3(x).tanh().flatten(1)).tanh())


def mlp() -> nn.Module:
    """784-400-400-10, ReLU."""
    layers = [nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


Masks = dict[str, Tensor]
Data = tuple[Tensor, Tensor]
#: Trains and prunes a network in place, from its start, and returns the gradient evaluations.
Fit = Callable[[nn.Module, Data, argparse.Namespace, torch.Generator], int]


def minibatches(generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of the training images for ever: random permutations laid end to end, in batches."""
    order = torch.empty(0, dtype=torch.long)
    while True:
        while len(order) < BATCH:
            order = torch.cat([order, torch.randperm(TRAIN, generator=generator)])
        yield order[:BATCH]
        order = order[BATCH:]


def cosine(start: float, end: float, done: float) -> float:
    """A rate after a fraction of the steps."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Everything that is pruned: weights, not biases."""
    return {name: p for name, p in model.named_parameters() if p.ndim > 1}


def global_mask(scores: dict[str, Tensor], sparsity: float) -> Masks:
    """Keep the highest scores over all layers."""
    flat = torch.cat([s.flatten() for s in scores.values()])
    count = round(sparsity * len(flat))
    if count == 0:
        return {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}
    cut = flat.kthvalue(count).values
    return {name: s > cut for name, s in scores.items()}


def erk_densities(shapes: dict[str, torch.Size], sparsity: float) -> dict[str, float]:
    """Erdős-Rényi-kernel densities (Evci et al.): proportional to sum(shape) / prod(shape), at most 1."""
    full: set[str] = set()
    while True:
        kept = (1 - sparsity) * sum(s.numel() for s in shapes.values()) - sum(shapes[n].numel() for n in full)
        free = {n: sum(s) for n, s in shapes.items() if n not in full}
        densities = {n: kept * total / sum(free.values()) / shapes[n].numel() for n, total in free.items()}
        over = {n for n, d in densities.items() if d > 1}
        if not over:
            return {n: densities.get(n, 1.0) for n in shapes}
        full |= over


def random_masks(model: nn.Module, sparsity: float, generator: torch.Generator) -> Masks:
    """ERK densities, at random in each layer."""
    masks = {}
    for name, density in erk_densities({n: w.shape for n, w in weights(model).items()}, sparsity).items():
        noise = torch.rand(weights(model)[name].shape, generator=generator)
        masks[name] = noise <= noise.flatten().kthvalue(max(1, round(density * noise.numel()))).values
    return masks


@torch.no_grad()
def scale_start(model: nn.Module, masks: Masks) -> None:
    """Each unit's weights at the variance of its remaining fan-in (Evci et al., arXiv 2010.03533)."""
    for name, w in weights(model).items():
        inputs = masks[name].flatten(1).sum(1).clamp(min=1)
        w *= (w[0].numel() / inputs).sqrt().view(-1, *[1] * (w.ndim - 1))


def move(model: nn.Module, masks: Masks, fraction: float) -> Masks:
    """RigL: drop the smallest weights of each layer, grow where the gradient is largest."""
    moved = {}
    for name, w in weights(model).items():
        mask, count = masks[name].flatten(), int(fraction * int(masks[name].sum()))
        stay = mask.clone()
        order = w.detach().abs().flatten().masked_fill(~mask, math.inf).argsort()
        stay[order[:count]] = False
        demand = w.grad.abs().flatten().masked_fill(stay, -1).argsort(descending=True)
        stay[demand[:count]] = True
        moved[name] = stay.view_as(w)
    return moved


def draw_start(model: nn.Module, gain: float) -> None:
    """Weights anew, of variance gain / fan-in; one (SNIP's) is a normal cut at two deviations, two is He's."""
    for w in weights(model).values():
        std = (gain / w[0].numel()) ** 0.5
        if gain == 1:
            nn.init.trunc_normal_(w, 0, std / 0.8796, -2 * std / 0.8796, 2 * std / 0.8796)
        else:
            nn.init.normal_(w, 0, std)


def snip_masks(model: nn.Module, x: Tensor, y: Tensor, sparsity: float) -> Masks:
    """|w dL/dw| on one batch."""
    F.cross_entropy(model(x), y).backward()
    return global_mask({n: (w * w.grad).abs().detach() for n, w in weights(model).items()}, sparsity)


def grasp_masks(model: nn.Module, x: Tensor, y: Tensor, sparsity: float) -> Masks:
    """Remove where -w (H g) is largest: H g is the gradient of g'v at v = g, of the loss of logits / 200."""
    named = weights(model)
    g = torch.autograd.grad(F.cross_entropy(model(x) / 200, y), list(named.values()), create_graph=True)
    hg = torch.autograd.grad(sum((a * a.detach()).sum() for a in g), list(named.values()))
    return global_mask({n: (w * h).detach() for (n, w), h in zip(named.items(), hg, strict=True)}, sparsity)


def synflow_masks(model: nn.Module, x: Tensor, sparsity: float) -> Masks:
    """A hundred rounds of |w dR/dw|, R the sum of the outputs for an input of ones, all parameters at their size."""
    flow = copy.deepcopy(model).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.abs_()
    named, ones = weights(flow), torch.ones_like(x[:1], dtype=torch.float64)
    for k in range(1, 101):
        flow.zero_grad()
        flow(ones).sum().backward()
        masks = global_mask({n: (w * w.grad).detach() for n, w in named.items()}, 1 - (1 - sparsity) ** (k / 100))
        apply(flow, masks)
    return masks


def at_start(model: nn.Module, data: Data, a: argparse.Namespace, generator: torch.Generator) -> tuple[Masks, int]:
    """The masks before the first step, and the gradient evaluations that they took."""
    (x, y), method = data, a.method
    if method in ("gradual-magnitude", "acdc"):
        return largest(model, 0.0), 0
    if method == "rigl":
        return random_masks(model, a.sparsity, generator), 0
    draw_start(model, a.gain)
    if method == "synflow":
        return synflow_masks(model, x, a.sparsity), 0
    first = torch.randperm(TRAIN, generator=generator)[:512]
    masks = (snip_masks if method == "snip" else grasp_masks)(model, x[first], y[first], a.sparsity)
    return masks, 512 if method == "snip" else 2 * 512


def largest(model: nn.Module, sparsity: float) -> Masks:
    """Keep the largest weights over all layers."""
    return global_mask({n: w.detach().abs() for n, w in weights(model).items()}, sparsity)


def turn(step: int, steps: int) -> int:
    """AC/DC's phase: -1 is the dense warm-up of a tenth; even ones are sparse, and the last, the 14th, takes 15 %."""
    return -1 if step < 0.1 * steps else min(14, int(14 * (step / steps - 0.1) / 0.75))


def next_masks(model: nn.Module, masks: Masks, a: argparse.Namespace, step: int, steps: int) -> Masks:
    """The masks under which a step moves, its gradients known."""
    done, every = step / steps, steps // 50
    if a.method == "gradual-magnitude":
        every = max(1, round(0.45 * steps / 50))
        if step == round(0.5 * steps):
            return largest(model, a.sparsity)
        if 0.05 <= done <= 0.5 and step % every == 0:
            return largest(model, a.sparsity * (1 - (1 - (done - 0.05) / 0.45) ** 3))
    if a.method == "rigl" and step and step % every == 0 and done < 0.75:
        return move(model, masks, 0.15 * (1 + math.cos(math.pi * done / 0.75)))
    if a.method == "acdc" and turn(step, steps) != turn(step - 1, steps):
        return largest(model, 0.0 if turn(step, steps) % 2 else a.sparsity)
    return masks


def train(model: nn.Module, data: Data, a: argparse.Namespace, generator: torch.Generator) -> int:
    """All methods; see `Fit`."""
    x, y = data
    masks, spent = at_start(model, data, a, generator)
    steps = round((EPOCHS * TRAIN - spent) / BATCH)
    if not a.as_drawn:
        scale_start(model, masks)
    optimizer = torch.optim.SGD(model.parameters(), a.lr, momentum=0.9, weight_decay=a.weight_decay)
    apply(model, masks)
    for step, batch in zip(range(steps), minibatches(generator), strict=False):
        optimizer.param_groups[0]["lr"] = cosine(a.lr, a.lr_min, step / steps)
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        masks = next_masks(model, masks, a, step, steps)
        if a.method == "acdc" and turn(step, steps) % 2 and turn(step, steps) != turn(step - 1, steps):
            optimizer.state.clear()  # a dense phase begins without momentum
        apply(model, masks)
        for name, w in weights(model).items():
            w.grad *= masks[name]
            if w in optimizer.state:
                optimizer.state[w]["momentum_buffer"] *= masks[name]
        optimizer.step()
        apply(model, masks)
    return spent + steps * BATCH


@torch.no_grad()
def apply(model: nn.Module, masks: Masks) -> None:
    """Masked weights are zero."""
    for name, w in weights(model).items():
        w *= masks[name]


@torch.no_grad()
def score(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Accuracy and NLL."""
    log_p = torch.cat([model(part) for part in x.split(2000)]).double().log_softmax(1)
    return float((log_p.argmax(1) == y).double().mean()), float(F.nll_loss(log_p, y))


def arguments(about: str, network: str = "mlp") -> argparse.ArgumentParser:
    """The options that all methods share."""
    p = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--network", choices=("lenet", "mlp"), default=network)
    p.add_argument("--sparsity", type=float, default=0.95)
    p.add_argument("--seeds", type=int, nargs="+", default=[0])
    p.add_argument("--held-out", choices=("last", "random", "comparison"), default="last")
    p.add_argument("--data", type=Path, required=True)
    return p


def run(method: str, fit: Fit, a: argparse.Namespace, log: Path) -> None:
    """Fit the seeds, score them on the test images and append their lines."""
    torch.set_num_threads(1)
    for seed in a.seeds:
        x, y, test_x, test_y = load(a.data, a.held_out, seed)
        started = time.perf_counter()
        torch.manual_seed(seed)
        model = LeNet() if a.network == "lenet" else mlp()
        spent = fit(model, (x, y), a, torch.Generator().manual_seed(seed))
        accuracy, nll = score(model, test_x, test_y)
        zeros = sum(int((w == 0).sum()) for w in weights(model).values())
        row = {
            "method": method,
            **{k: v for k, v in vars(a).items() if k not in ("method", "seeds", "data")},
            "achieved_sparsity": round(zeros / sum(w.numel() for w in weights(model).values()), 4),
            "seed": seed,
            "gradient_evaluations": spent,
            "accuracy": round(accuracy, 4),
            "nll": round(nll, 4),
            "seconds": round(time.perf_counter() - started),
        }
        print(json.dumps(row), flush=True)
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")


def main() -> None:
    """Run one of the methods."""
    p = arguments(__doc__, "lenet")
    p.add_argument("method", choices=("gradual-magnitude", "acdc", "rigl", "snip", "grasp", "synflow"))
    p.add_argument("--lr", type=float, default=0.1)
    p.add_argument("--lr-min", type=float, default=0.0)
    p.add_argument("--weight-decay", type=float, default=5e-4)
    p.add_argument(
        "--gain", type=float, default=1.0, help="variance of a start times its fan-in (SNIP, GraSP, SynFlow)"
    )
    p.add_argument("--as-drawn", action="store_true", help="do not scale what a mask at the start leaves")
    a = p.parse_args()
    run(a.method, train, a, Path(__file__).with_suffix(".jsonl"))


if __name__ == "__main__":
    main()
