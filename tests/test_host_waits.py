"""A chain on a device does not wait for the host, nor the host for it, between the steps that say something.

There is no GPU here, so the chain runs on PyTorch's `meta` device, where a kernel computes nothing, and a mode notes
every call that would wait on a GPU: a number that is read from the device, and a tensor that is copied there from
ordinary memory.
"""

import contextlib
import traceback
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sgmcmc_prune import likelihoods
from sgmcmc_prune.chains import batched
from sgmcmc_prune.chains.batched import BatchedChains
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.pruner import Pruner
from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.data.augmentation import Augmentation
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.preconditioners import RMSprop
from sgmcmc_prune.priors import GroupMap, Horseshoe, Laplace, SpikeSlab, StudentT
from sgmcmc_prune.priors.em import adaptation
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.priors.scale_family import ScaleFamily
from sgmcmc_prune.samplers import BAOAB, OBABO, SGHMC, SGLD, SGNHT, AdaptiveSGHMC

READS = ("item", "tolist", "__bool__", "__float__", "__int__", "nonzero", "cpu", "numpy")
#: What an epoch begins and ends with: its order goes to the device, and the mass matrix is checked.
ONCE_AN_EPOCH = ("randperm", "median", "(mass >= floor")
FROM_HOST = ("tensor", "as_tensor", "from_numpy", "new_tensor")


class Waits(TorchFunctionMode):
    """Notes what would wait, and from which line of the package.

    With `device="cpu"` ordinary tensors stand for those of the device: what looks at values runs as it does.
    """

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.device, self.found = device, Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", str(func)), kwargs or {}
        on_device = bool(args) and isinstance(args[0], Tensor) and args[0].device.type == self.device
        chosen = name == "__getitem__" and isinstance(args[1], Tensor) and args[1].dtype == torch.bool
        if (name in READS or chosen) and on_device:  # the size of what a mask chooses is read from the device
            self._note(name)
            if self.device == "cpu":
                return func(*args, **kwargs)
            read = torch.ones(args[0].shape)
            return {"__bool__": True, "item": 1.0, "__float__": 1.0, "__int__": 0, "cpu": read}.get(name, read.tolist())
        made = func(*args, **kwargs)
        arrived = isinstance(made, Tensor) and made.device.type == "meta"
        if name in FROM_HOST and arrived:
            self._note(name)
        if name in ("to", "copy_") and arrived:
            source = args[1] if name == "copy_" else args[0]
            if isinstance(source, Tensor) and source.device.type == "cpu":
                self._note(f"{name} from the host")
        return made

    def _note(self, what: str) -> None:
        frames = [f for f in traceback.extract_stack() if "sgmcmc_prune" in f.filename and f.filename != __file__]
        self.found[f"{what}: {frames[-1].filename}:{frames[-1].lineno} {frames[-1].line}" if frames else what] += 1


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it does not know `meta`


def chain(
    sampler: Any = SGHMC,
    augment: bool = False,
    index: int = 0,
    family: Any = SpikeSlab,
    em: EMSettings | None = None,
    pruner: Pruner | None = None,
    **prior: Any,
) -> Chain:
    """Four steps of burn-in, four of exploration and four of which two give draws."""
    inputs, targets = torch.randn(64, 3, 4, 4), torch.randint(3, (64,))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).to("meta")
    if prior.get("group") == "index":
        prior["group"] = {"3.weight": GroupMap.from_index(torch.arange(48).view(3, 16) // 4)}
    one_scale = issubclass(family, ScaleFamily)
    law = family(1.0) if one_scale else family(dict(model.named_parameters()), seed=0, **prior)
    with Waits():
        law.sample_latent(dict(model.named_parameters()), 0)  # index maps go to the device once
    transform = Augmentation("crop_flip", 4, torch.zeros(3, device="meta"), 0, 0) if augment else None
    stream = MinibatchStream(inputs, targets, 16, 0, 0, transform)
    schedule = Cyclical(0.02, 0.02, 0.01, 0.9, 1.0, burn_in=4, cycles=1, explore=4, sample=4, thin=2)
    mass = {} if sampler is AdaptiveSGHMC else {"preconditioner": RMSprop()}  # it learns its own
    moved = sampler(model.named_parameters(), lr=0.01, num_data=64, prior=law, seed=0, chain=index, **mass)
    learned = None if em is None else adaptation(em, law, 1e-6)
    made = Chain(index, model, moved, schedule, stream, likelihoods.categorical, learned, pruner)
    stream.inputs, stream.targets = inputs.to("meta"), targets.to("meta")
    return made


def waits(made: Chain, steps: int) -> Counter[str]:
    with Waits() as mode:
        for _ in range(steps):
            made.advance()
    return mode.found


def in_steps(found: Counter[str]) -> set[str]:
    """The lines that do not belong to an epoch's end."""
    return {line for line in found if not any(part in line for part in ONCE_AN_EPOCH)}


@pytest.mark.parametrize(
    ("sampler", "mode", "group"),
    [
        *[(SGHMC, "marginal", "weight"), (SGHMC, "gibbs", "index"), (BAOAB, "gibbs", "node"), (SGHMC, "em", "index")],
        *[(sampler, "marginal", "weight") for sampler in (SGLD, OBABO, SGNHT, AdaptiveSGHMC)],
    ],
)
def test_a_step_waits_for_nothing(sampler: Any, mode: str, group: str) -> None:
    made = chain(sampler, mode=mode, group=group)
    waits(made, 1)  # the first step, and every hundredth or so, checks the loss
    found = waits(made, 7)  # two epochs
    assert in_steps(found) == set()


@pytest.mark.parametrize("family", [Laplace, StudentT])
def test_a_step_under_one_scale_for_each_matrix_waits_for_nothing(family: Any) -> None:
    made = chain(family=family)
    waits(made, 1)
    assert in_steps(waits(made, 7)) == set()


@pytest.mark.parametrize("kind", ["stochastic", "soft", "hard", "fixed"])
@pytest.mark.parametrize(
    ("family", "prior"),
    [
        (SpikeSlab, {"mode": "marginal"}),
        (SpikeSlab, {"mode": "gibbs", "group": "node"}),
        (SpikeSlab, {"mode": "em"}),
        (Laplace, {}),
        (StudentT, {}),
    ],
)
def test_an_iteration_of_em_waits_once_for_all_layers(kind: Any, family: Any, prior: dict[str, Any]) -> None:
    made = chain(family=family, em=EMSettings(kind=kind, every=2), **prior)
    waits(made, 1)
    found = {line: count for line, count in waits(made, 3).items() if line in in_steps(Counter([line]))}
    assert sum(found.values()) == (0 if kind == "fixed" and prior.get("mode") != "em" else 2), found


@pytest.mark.parametrize("criterion", ["inclusion_probability", "expected_log_odds", "magnitude", "signal_to_noise"])
def test_a_new_mask_waits_as_often_for_many_layers_as_for_two(criterion: str) -> None:
    counts = []
    for depth in (2, 9):
        params = {f"{k}.weight": torch.randn(4, 5) for k in range(depth)}
        groups = {name: GroupMap("weight", (4, 5)) for name in params}
        law = SpikeSlab(params, seed=0, mode="marginal")
        grown = Pruner(criterion, [0.5], groups, every=1)
        schedule = Cyclical(0.02, 0.02, 0.01, 0.9, 1.0, burn_in=0, cycles=1, explore=8, sample=4, thin=2)
        with Waits("cpu") as mode:
            assert grown.update(1, schedule(1), params, law) is not None
        counts.append(sum(mode.found.values()))
    assert counts[0] == counts[1] <= 4, mode.found


def test_a_sweep_over_the_horseshoe_s_scales_waits_once_for_all_layers() -> None:
    made = chain(family=Horseshoe)
    waits(made, 1)
    found = {line: count for line, count in waits(made, 7).items() if line in in_steps(Counter([line]))}
    assert list(found.values()) == [7], found


def test_chains_that_step_together_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched, "require_batchable", lambda chain: None)  # it compares numbers
    together = BatchedChains([chain(index=k, mode="marginal") for k in range(2)])
    with Waits():
        together.advance()
    with Waits() as mode:
        for _ in range(7):
            together.advance()
    assert in_steps(mode.found) == set()


def test_an_augmented_batch_waits_for_nothing() -> None:
    made = chain(augment=True)
    waits(made, 1)
    found = waits(made, 2)
    assert in_steps(found) == set()


def test_a_draw_waits_for_its_check_alone() -> None:
    made = chain(mode="marginal", group="index")
    waits(made, 8)
    found = waits(made, 4)
    assert made.draws == 2
    checked = {line for line in found if "flag.py" in line or "float(self._loss)" in line}
    assert all(found[line] == 2 for line in checked)
    once = {line for line in found if "self.group_size.to" in line}  # an index map's sizes, in a type that is new
    assert in_steps(found) == checked | once
    assert all(found[line] == 1 for line in once)


def test_the_detector_sees_what_it_should() -> None:
    with Waits() as mode:
        on_device = torch.zeros(3, device="meta")
        float(on_device.sum())
        torch.zeros(3).to(on_device)
        torch.tensor([1.0], device="meta")
        on_device.new_tensor(1.0)
        on_device.copy_(torch.zeros(3))
        torch.arange(3, device="meta") * 2
    assert sum(mode.found.values()) == 5
