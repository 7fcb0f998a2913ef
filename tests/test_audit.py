"""The audit: silent on a sound model, and one line with numbers for each planted fault; nothing is changed."""

import copy
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sgmcmc_prune.priors import SpikeSlab
from sgmcmc_prune.run.audit import audit
from sgmcmc_prune.samplers import SGHMC, Sampler

NUM_DATA = 48


def dataset() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(NUM_DATA, 5, generator=generator), torch.arange(NUM_DATA) % 3)


def network(middle: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), middle or nn.Tanh(), nn.Linear(8, 3)).train()


def loader(**options: Any) -> DataLoader:
    return DataLoader(dataset(), **{"batch_size": 12, "shuffle": True, **options})


def sampler_of(model: nn.Module, kind: type[Sampler] = SGHMC, **settings: Any) -> Sampler:
    return kind(model.named_parameters(), **{"lr": 0.1, "num_data": NUM_DATA, "prior": 2.0, **settings})


CROSS_ENTROPY = nn.CrossEntropyLoss()


def found(model: nn.Module | None = None, loss: Callable = CROSS_ENTROPY, **options: Any) -> list[str]:
    arguments = {"batches": loader(), "num_data": NUM_DATA, **options}
    return audit(model or network(), loss, **arguments)


class Augmented:
    """Each pass jitters the inputs."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((x + 0.1 * torch.randn_like(x), y) for x, y in loader())


def test_a_sound_model_has_no_findings() -> None:
    model = network()
    assert audit(model, nn.CrossEntropyLoss(), loader(), NUM_DATA, sampler_of(model)) == []
    sparse = SpikeSlab(dict(model.named_parameters()))
    assert audit(model, nn.CrossEntropyLoss(), loader(), NUM_DATA, sampler_of(model, prior=sparse)) == []


def test_batchnorm_in_eval_mode_is_no_finding() -> None:
    assert found(network(nn.BatchNorm1d(8)).eval()) == []


def test_an_augmented_set_that_is_sound_otherwise_gives_one_line() -> None:
    (line,) = found(batches=Augmented())
    assert line.startswith("48 of 48 inputs of the second epoch did not occur in the first: the data are augmented")


def test_a_sum_for_a_mean() -> None:
    (line,) = found(loss=nn.CrossEntropyLoss(reduction="sum"))
    assert "given twice is 2.000 times its loss" in line
    assert "counts each of them 12 times" in line


def test_neither_sum_nor_mean() -> None:
    findings = found(loss=lambda o, t: nn.functional.cross_entropy(o, t) * len(t) ** 0.5)
    assert "1.414 times its loss" in findings[0]
    assert "no mean over examples" in findings[0]


@pytest.mark.parametrize("num_data", [60, 40])
def test_num_data_that_disagrees_with_the_loader(num_data: int) -> None:
    (line,) = found(num_data=num_data)
    assert f"one epoch holds 48 examples, but num_data is {num_data}" in line


def test_a_dropped_last_batch() -> None:
    (line,) = found(batches=loader(batch_size=20, drop_last=True))
    assert "one epoch holds 40 examples, but num_data is 48" in line


def test_a_smaller_last_batch_weighs_more() -> None:
    (line,) = found(batches=loader(batch_size=20))
    assert "the average of the minibatch gradients differs by" in line
    assert "batches have 8 to 20 examples" in line


def test_dropout() -> None:
    findings = found(network(nn.Dropout(0.3)))
    assert "the network is random (1 in train mode)" in findings[0]
    assert "present mode differs by" in findings[1]
    assert len(findings) == 2


def test_batchnorm() -> None:
    findings = found(network(nn.BatchNorm1d(8)))
    assert "examples depend on one another (1 in train mode)" in findings[0]
    assert "present mode differs by" in findings[1]
    assert len(findings) == 2


def test_a_forgotten_prior() -> None:
    model = network()
    (line,) = found(model, sampler=sampler_of(model, prior=None))
    assert line == "the force on 0.weight, 0.bias, 2.weight, 2.bias is the gradient alone: there is no prior on them"


def test_a_prior_that_is_counted_twice() -> None:
    class Twice(SGHMC):
        def force(self, name: str, p: Tensor, num_data: int) -> Tensor:
            once = super().force(name, p, num_data)
            return once + (once - p.grad)

    model = network()
    findings = found(model, sampler=sampler_of(model, Twice))
    assert findings[0] == "the prior's force on 0.weight differs by 100.00% from the slope of its log density / N"
    assert len(findings) == 4


def test_a_sampler_with_another_num_data_or_without_some_weights() -> None:
    model = network()
    sampler = SGHMC(list(model.named_parameters())[:2], lr=0.1, num_data=50, prior=1.0)
    findings = found(model, sampler=sampler)
    assert findings == [
        "the sampler does not hold 2.weight, 2.bias: these weights would never move",
        "the sampler's num_data is 50, not 48",
    ]


def test_nothing_is_changed() -> None:
    model = network(nn.BatchNorm1d(8))
    model[2].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = copy.deepcopy(model.state_dict())
    sampler = sampler_of(model)
    words = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    audit(model, nn.CrossEntropyLoss(), Augmented(), NUM_DATA, sampler)
    assert torch.equal(words[0], torch.get_rng_state())
    assert words[1:] == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, True, False]
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[2].weight.grad is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": []}, "held no batch"),
        ({"batches": iter(loader())}, "held no batch"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, r"the loss of a batch is \(12,\)"),
        ({"loss": lambda o, t: o.sum() * float("nan")}, "the loss of a batch is nan"),
    ],
)
def test_bad_input_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        found(**options)


NOISY = """from torch import nn

def net(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, classes))
"""


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--model.name", "linear"], 0, "nothing found"),
        (["--model.name", "noisy:net"], 1, "the network is random (1 in train mode)"),
        (["--model.name", "absent"], 2, "model.name is 'absent'"),
    ],
)
def test_the_command(options: list[str], code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    command = [sys.executable, "-m", "sgmcmc_prune.cli", "audit", "demo", "--data.validation", "4000", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert ("GB for the masks of 18 rows and 2 chains, in each rank of a machine" in done.stdout) == (code < 2)
