"""The chain of `experiments.ours.cifar10_resnet20` again, dense, in plain torch and without this library.

ResNet-20 on the binary files of CIFAR-10, crops with black borders and flips, bfloat16 autocast. With g the gradient of
the mean loss, of N examples, at T = 0.01 under a prior N(0, v) on every parameter, for a step l and a momentum beta:

    b <- beta b + g + w / (N v) - sqrt(2 (1 - beta) T / (N l)) xi,    w <- w - l b.

The step follows a cosine from 0.1 to 0.005 in the first four fifths, and stays; beta = 1 - 0.1 sqrt(l / 0.1); where l
changes, b is multiplied by sqrt(l_old / l_new). Six draws from the last part are averaged after their BatchNorm
statistics were estimated on 2,000 augmented training images.

    python experiments/ours/cifar10_plain.py cifar-10-batches-bin SEED EPOCHS >> cifar10_plain.jsonl
"""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH, T, V, LR, LR_MIN, DRAWS = 128, 0.01, 0.04, 0.1, 0.005, 6


def read(folder: Path, names: list[str]) -> tuple[Tensor, Tensor]:
    rows = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in names])
    return torch.tensor(rows[:, 1:]).view(-1, 3, 32, 32).float() / 255, torch.tensor(rows[:, 0]).long()


class Block(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.new, self.stride = width - inputs, width // inputs
        self.conv1 = nn.Conv2d(inputs, width, 3, self.stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        short = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new // 2, self.new - self.new // 2))
        return F.relu(y + short)


def resnet20() -> nn.Module:
    blocks = [
        Block(a, b) for a, b in zip([16, 16, 16, 16, 32, 32, 32, 64, 64], [16] * 3 + [32] * 3 + [64] * 3, strict=True)
    ]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    net = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net.to(memory_format=torch.channels_last)


def augmented(x: Tensor) -> Tensor:
    """Raw pixels: a border of four black ones, a crop of 32 x 32, half of them mirrored."""
    n, padded = len(x), F.pad(x, (4, 4, 4, 4))
    rows, columns = (torch.randint(0, 9, (n, 1)) + torch.arange(32) for _ in range(2))
    columns = torch.where(torch.rand(n, 1) < 0.5, columns, columns.flip(1))
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def main(folder: str, seed: str, epochs: str) -> None:
    torch.manual_seed(int(seed))
    started = time.perf_counter()
    x, y = read(Path(folder), [f"data_batch_{k}.bin" for k in range(1, 6)])
    test, labels = read(Path(folder), ["test_batch.bin"])
    mean, std = x.mean((0, 2, 3)).view(-1, 1, 1), x.std((0, 2, 3)).view(-1, 1, 1)
    net, n = resnet20(), len(y)

    def inputs(raw: Tensor) -> Tensor:
        return ((raw - mean) / std).contiguous(memory_format=torch.channels_last)

    per_epoch = n / BATCH
    steps, first = round(float(epochs) * per_epoch), round(0.8 * float(epochs) * per_epoch)
    begin = first + round(0.05 * float(epochs) * per_epoch)
    thin = max(1, (steps - begin) // DRAWS)
    buffers = [torch.zeros_like(p) for p in net.parameters()]
    order, probabilities, before, losses = torch.randperm(n), [], LR, []
    for step in range(steps):
        lr = LR_MIN + (LR - LR_MIN) * (1 + math.cos(math.pi * step / first)) / 2 if step < first else LR_MIN
        beta, scale, before = 1 - 0.1 * math.sqrt(lr / LR), math.sqrt(before / lr), lr
        at = step * BATCH % (n - n % BATCH)
        if at == 0:
            order = torch.randperm(n)
        index = order[at : at + BATCH]
        net.train()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = net(inputs(augmented(x[index])))
        loss = F.cross_entropy(outputs.float(), y[index])
        net.zero_grad()
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            noise = math.sqrt(2 * (1 - beta) * T / (n * lr))
            for p, b in zip(net.parameters(), buffers, strict=True):
                b.mul_(beta * scale).add_(p.grad).add_(p, alpha=1 / (n * V)).sub_(noise * torch.randn_like(b))
                p.sub_(lr * b)
        if step >= begin and (step - begin + 1) % thin == 0 and len(probabilities) < DRAWS:
            probabilities.append(predict(net, inputs, x, test))
        if step % 400 == 399:
            print(
                step + 1,
                steps,
                f"{np.mean(losses[-400:]):.3f}",
                f"{time.perf_counter() - started:.0f} s",
                file=sys.stderr,
            )
    average, each = torch.stack(probabilities).mean(0), torch.stack([score(p, labels) for p in probabilities]).mean(0)
    accuracy, nll = score(average, labels).tolist()
    print(
        json.dumps(
            {"seed": int(seed), "epochs": float(epochs), "accuracy": accuracy, "nll": nll, "ece": ece(average, labels)}
            | {"single_accuracy": each[0].item(), "single_nll": each[1].item(), "members": len(probabilities)}
        )
    )


@torch.no_grad()
def predict(net: nn.Module, inputs, x: Tensor, test: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    net.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    for rows in torch.randperm(len(x))[:2000].split(500):
        net(inputs(augmented(x[rows])))
    net.eval()
    found = torch.cat([net(inputs(part)).softmax(1) for part in test.split(1000)])
    for norm in norms:
        norm.momentum = 0.1
    return found


def score(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Accuracy and mean negative log-likelihood."""
    right = (probabilities.argmax(1) == labels).float().mean()
    return torch.stack([right, F.nll_loss(probabilities.log(), labels)])


def ece(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error, 15 bins of equal width."""
    confidence, guess = probabilities.max(1)
    bins = (confidence * 15).long().clamp(max=14)
    gaps = [((guess == labels).float() - confidence)[bins == k].sum().abs() for k in range(15)]
    return float(torch.stack(gaps).sum() / len(labels))


if __name__ == "__main__":
    main(*sys.argv[1:])
