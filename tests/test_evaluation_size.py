"""What is done with finished draws holds one draw, or one chain's averages, at a time, and gives the same as before."""

import gc
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small
from torch import Tensor

from sgmcmc_prune.chains import memory
from sgmcmc_prune.pruning.packed_masks import PackedMasks, pack
from sgmcmc_prune.run.decide import asked_post_hoc, decided_post_hoc, inclusion_averages, inclusion_errors
from sgmcmc_prune.run.directory import StoredAverages, load_averages
from sgmcmc_prune.run.evaluate import held_out_losses
from sgmcmc_prune.run.main import run
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.store.weights import average


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two chains of one long cycle, so that inclusion has standard errors."""
    out = tmp_path_factory.mktemp("size") / "run"
    settings = {"schedule.cycles": 1, "schedule.sample": 8.0, "schedule.draws": 64, "prune.in_chain": ()}
    config = small(**settings, chains=2, keep_weight_draws=True)
    run(config, out, progress=False)
    return Run(config, out)


def test_a_mean_is_that_of_all_draws_and_holds_one_of_them() -> None:
    torch.manual_seed(0)
    draws = [{"w": 1 + 1e-4 * torch.randn(50), "count": torch.tensor(k)} for k in range(9)]
    alive: list[weakref.ref[Tensor]] = []

    def one_by_one() -> Iterator[dict[str, Tensor]]:
        for draw in draws:
            w = draw["w"].clone()
            alive.append(weakref.ref(w))
            yield {"w": w, "count": draw["count"]}
            del w
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1

    found = average(one_by_one())
    expected = torch.stack([draw["w"] for draw in draws]).double().mean(0).float()
    assert found["w"].dtype == torch.float32
    assert torch.equal(found["w"], expected)
    torch.testing.assert_close(found["w"], torch.stack([draw["w"] for draw in draws]).mean(0), rtol=3e-7, atol=0)
    assert int(found["count"]) == 8


def test_a_mean_of_double_numbers_leaves_the_draws_as_they_were() -> None:
    first = torch.ones(3, dtype=torch.float64)
    assert average([{"w": first}, {"w": 3 * first}])["w"].tolist() == [2.0] * 3
    assert first.tolist() == [1.0] * 3


def test_masks_are_those_that_each_decision_gives_alone(finished: Run) -> None:
    groups, losses, asked = (
        finished.groups(finished.model(0)),
        held_out_losses(finished),
        asked_post_hoc(finished.config),
    )
    states: Any = [load_averages(finished.places, chain) for chain in range(2)]
    together = decided_post_hoc(finished.config, groups, StoredAverages(finished.places, 2), losses, asked)
    assert len(together) == len(asked) > 8
    assert any(one.criterion == "random" for one in asked)  # it copies the layers of another criterion
    for one, both in zip(asked, together, strict=True):
        (alone,) = decided_post_hoc(finished.config, groups, states, losses, [one])
        assert alone.labels == both.labels
        for mask, same in zip(alone.masks, both.masks, strict=True):
            assert all(torch.equal(mask[name], same[name]) for name in groups)


def test_packed_masks_are_the_masks_and_take_a_bit_a_weight() -> None:
    torch.manual_seed(0)
    chains = [{"a": torch.rand(5, 7, 3) > 0.4, "b": torch.rand(16, 2) > 0.9} for _ in range(3)]
    packed = PackedMasks(map(pack, chains))
    assert len(packed) == 3
    for mask, found in zip(chains, packed, strict=True):
        assert mask.keys() == found.keys()
        assert all(torch.equal(mask[name], found[name]) and found[name].dtype == torch.bool for name in mask)
    assert {name: bits.nbytes for name, (bits, _) in pack(chains[0]).items()} == {"a": -(-105 // 8), "b": 4}
    with pytest.raises(IndexError):
        packed[3]


def test_errors_of_inclusion_are_those_of_all_averages_in_memory(finished: Run) -> None:
    states = [load_averages(finished.places, chain) for chain in range(2)]
    found = inclusion_errors(StoredAverages(finished.places, 2))
    averages = [inclusion_averages(state) for state in states]
    for name in averages[0]:
        error = torch.cat([a[name].standard_error for a in averages])
        margin = (torch.cat([a[name].included for a in averages]) - 0.5).abs()
        assert found["standard_error"][name] == float(error.median())
        assert found["undecided"][name] == pytest.approx(float((margin <= 2 * error).double().mean()), abs=1e-12)
    assert found["batches"] == 8


def test_one_chain_is_in_memory_at_a_time_and_read_once(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, weakref.ref[Tensor]]] = []

    def counted(places: Any, chain: int) -> dict[str, Any]:
        gc.collect()
        assert all(mean() is None for _, mean in read)
        state = load_averages(places, chain)
        read.append((chain, weakref.ref(next(iter(state["moments"].values()))["mean"])))
        return state

    monkeypatch.setattr("sgmcmc_prune.run.directory.load_averages", counted)
    stored, groups = StoredAverages(finished.places, 2), finished.groups(finished.model(0))
    decided_post_hoc(finished.config, groups, stored, held_out_losses(finished), asked_post_hoc(finished.config))
    assert [chain for chain, _ in read] == [0, 1]
    inclusion_errors(stored)
    assert [chain for chain, _ in read] == [0, 1, 0, 1]
    decided_post_hoc(finished.config, groups, stored, held_out_losses(finished), [])
    assert len(read) == 4
    with pytest.raises(IndexError):
        _ = stored[2]


def test_the_numbers_of_the_guide_are_those_of_the_table() -> None:
    root = Path(__file__).resolve().parents[1]
    table = (root / "benchmarks" / "evaluation.md").read_text()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| ")]
    now = {(row[1], row[2]): int(row[6].replace(",", "")) for row in rows if row[1].isdigit()}
    before = {(row[1], row[2]): int(row[4].replace(",", "")) for row in rows if row[1].isdigit()}
    said = f"{now['2', '3'] / 1000:.1f} GB for two chains and {now['4', '3'] / 1000:.1f} GB for four"
    assert said in (root / "docs" / "scaling.md").read_text()
    weights = 11_164_352  # of ResNet-18 that may be pruned
    growth = round((before["4", "3"] - before["2", "3"]) / 2 * 2**20 / weights)
    assert f"every chain beyond the second took {growth} bytes a weight; now four chains take no more than two" in table
    assert now["4", "3"] <= now["2", "3"]
    assert f"{memory.READ} bytes a prunable weight, {memory.ERRORS} more for each chain" in table
    for chains in (1, 2, 4):  # the estimate is above what was measured
        assert (memory.READ + chains * (memory.ERRORS + 4 * memory.MASK)) * weights > now[str(chains), "3"] * 2**20
    megabytes = int(re.findall(r"27 rows of eight chains .* ([0-9,]+) MB", table)[0].replace(",", ""))
    assert (memory.READ + 8 * (memory.ERRORS + 27 * memory.MASK)) * weights > megabytes * 2**20
