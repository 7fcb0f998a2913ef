"""A run whose forks go on in the cut network: the same bits after an interruption, and full shapes in all its files."""

from pathlib import Path
from typing import Any

import pytest
from small_run import assert_same_run, small

from sgmcmc_prune import models
from sgmcmc_prune.chains import smaller
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.schedules import Plan
from sgmcmc_prune.chains.smaller import CuttingChain
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.headline import headline
from sgmcmc_prune.run.main import resume, run
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.weights import WeightStore


def config(**changes: Any) -> RunConfig:
    """One chain of a small MLP that loses nodes at two targets, with two cycles at each; a checkpoint after a cycle."""
    settings: dict[str, Any] = {
        "chains": 1,
        "model.name": "mlp",
        "model.options": ("widths=[12,10]",),
        "prior.group": "node",
        "schedule.burn_in": 2.0,
        "schedule.cycles": 1,
        "schedule.draws": 2,
        "prune.cut": True,
        "prune.targets": (0.3, 0.6),
        "prune.cycles": 2,
        "prune.explore": 1.0,
        "prune.in_chain": ("root_mean_square",),
        "prune.post_hoc": ("root_mean_square",),
        "prune.decisions": (),
        "checkpoint_seconds": 1000.0,
        "keep_weight_draws": True,
    }
    return small(**{**settings, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cut") / "whole"
    run(config(), out, progress=False)
    return out


class Stopped(Exception):
    """Nobody catches it: as after a kill, nothing more is written."""


def test_a_run_that_cuts_resumes_to_the_same_bits(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped right after the cut, and again in the last cycle, some steps after a checkpoint of the cut chain."""
    sizes, cycles, advance = list[int](), list[int](), CuttingChain.advance

    def stopping(self: CuttingChain) -> Plan:
        plan = advance(self)
        if self.small is not None:
            sizes.append(models.num_parameters(self.small.model))
            cycles.append(plan.cycle)
            if len(cycles) == 1 or cycles.count(4) == 7:
                raise Stopped
        return plan

    monkeypatch.setattr(CuttingChain, "advance", stopping)
    with pytest.raises(Stopped):
        run(config(), tmp_path / "stopped", progress=False)
    with pytest.raises(Stopped):
        resume(tmp_path / "stopped", progress=False)
    before = len(cycles)
    resume(tmp_path / "stopped", progress=False)
    assert set(cycles[before:]) == {4}  # from the checkpoint of the cut chain
    assert len(set(sizes)) == 1
    assert sizes[0] < models.num_parameters(models.MLP((1, 28, 28), 10, (12, 10)))
    assert_same_run(whole, tmp_path / "stopped")
    rows = [row for row in read_json(whole / "metrics.json", checksum=True)["pruned"] if row["when"] == "in_chain"]
    assert rows[-1]["parameters"] == sizes[0]


def test_draws_of_a_cut_fork_have_full_shapes_and_zeros_where_nothing_is(whole: Path) -> None:
    fork = whole / "forks" / "root_mean_square"
    mask = masks.load(fork / "masks" / "chain0-0.6.safetensors")
    assert set(mask) == {"layers.0.weight", "layers.1.weight"}
    draw, empty = WeightStore(fork / "draws").load(0, 7), ~mask["layers.0.weight"].any(1)
    assert draw["layers.0.weight"].shape == (12, 784)
    assert empty.any()
    assert not draw["layers.0.bias"][empty].any()
    assert not draw["layers.1.weight"][:, empty].any()
    assert draw["layers.0.bias"][~empty].all()


def take_to_end(chain: Chain) -> None:
    while not chain.finished:
        chain.advance()


def test_a_network_that_cannot_be_cut_goes_on_masked_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise ValueError("it cannot be traced")

    monkeypatch.setattr(smaller, "shrink", refuse)
    job = Run(config())
    chain = job.chain(0, job.schedule("root_mean_square"), "root_mean_square")
    assert isinstance(chain, CuttingChain)
    assert chain.pruner is not None
    with pytest.warns(UserWarning, match="chain 0 goes on in the masked network: it cannot be traced"):
        take_to_end(chain)
    assert chain.state_dict()["cut"] == {"tried": True, "positions": None}
    assert 0 < masks.sparsity(chain.mask) < 0.7


def test_chains_that_are_taken_together_are_not_cut() -> None:
    with pytest.raises(ValueError, match=r"prune\.cut needs a chain to itself: set execution to loop or processes"):
        config(execution="batched")


def test_a_run_without_a_fork_has_nothing_to_cut() -> None:
    with pytest.raises(ValueError, match=r"prune\.cut cuts forks, and prune\.in_chain names none"):
        config(**{"prune.in_chain": ()})


def test_a_run_prunes_whole_heads(tmp_path: Path) -> None:
    """Two of the four heads of a layer go, with their queries, keys and values."""
    vit = ("patch=14", "width=16", "depth=1", "heads=4", "hidden=8")
    changes = {"model.name": "vit", "model.options": vit, "prior.group": "head", "prior.spike_variance": 0.01}
    metrics = run(config(**changes, **{"prune.targets": (0.5,)}), tmp_path / "out", progress=False)
    mask = masks.load(tmp_path / "out" / "forks" / "root_mean_square" / "masks" / "chain0-0.5.safetensors")
    heads = mask["blocks.0.attention.proj.weight"].view(16, 4, 4)
    assert sorted(heads.all(2).all(0).tolist()) == sorted(heads.any(2).any(0).tolist()) == [False, False, True, True]
    dense, (row,) = metrics["dense"], [row for row in metrics["pruned"] if row["when"] == "in_chain"]
    assert metrics["pruned_of"] == "attention heads"
    assert "50 % of the attention heads pruned" in headline(metrics)[0]
    a_head = 3 * 4 * (16 + 1) + 4 * 16  # queries, keys and values with their biases, and columns of the projection
    assert row["parameters"] == dense["parameters"] - 2 * a_head


def test_a_network_without_heads_prunes_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no layer of the type .*Attention"):
        run(config(**{"prior.group": "head", "prior.spike_variance": 0.01}), tmp_path / "out")
