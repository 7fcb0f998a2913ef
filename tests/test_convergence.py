"""Batched R-hat and ESS: equal to ArviZ's to rounding, the same for every block size, streamed from weight draws."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from safetensors.torch import save_file
from test_inference_data import synthetic

from sgmcmc_prune import diagnostics
from sgmcmc_prune.diagnostics import StreamedDraws, ess, from_files, mcse_mean, nested_rhat, rhat, summarise
from sgmcmc_prune.run.tables import weights_table
from sgmcmc_prune.store.weights import WeightStore

TAILS = (0.05, 0.95)


def autoregressions(chains: int, draws: int, parameters: int = 20) -> np.ndarray:
    """float32 draws (chain, draw, parameter): correlated either way, some rounded (ties), some 0 or 1, some apart."""
    rng = np.random.default_rng(0)
    phi = rng.uniform(-0.9, 0.99, parameters)
    x = rng.standard_normal((chains, draws, parameters))
    for t in range(1, draws):
        x[:, t] += phi * x[:, t - 1]
    x += rng.standard_normal((chains, 1, parameters)) * rng.choice([0.0, 0.5], parameters)
    x[..., :6] = x[..., :6].round()
    x[..., 6:9] = x[..., 6:9] > 0
    return x.astype("float32")


@pytest.mark.filterwarnings("ignore:invalid value|divide by zero")
@pytest.mark.parametrize(("chains", "draws"), [(4, 100), (4, 101), (2, 37), (1, 50), (3, 4), (2, 5), (2, 6), (2, 7)])
def test_statistics_are_those_of_arviz(chains: int, draws: int) -> None:
    x = autoregressions(chains, draws)
    t, y = torch.from_numpy(x), x.astype("float64").transpose(2, 0, 1)
    pairs = {f"rhat {m}": (rhat(t, m), array_stats.rhat(y, method=m)) for m in ("rank", "z_scale", "folded", "split")}
    pairs |= {f"ess {m}": (ess(t, m), array_stats.ess(y, method=m)) for m in ("bulk", "mean")}
    pairs["ess tail"] = ess(t, "tail"), array_stats.ess(y, method="tail", prob=TAILS)
    pairs["mcse"] = mcse_mean(t), array_stats.mcse(y, method="mean")
    if chains == 4:
        pairs["nested"] = nested_rhat(t, [0, 1, 0, 1]), array_stats.rhat_nested(y, np.array([0, 1, 0, 1]))
    for name, (ours, theirs) in pairs.items():
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9, err_msg=name)


def test_blocks_and_streams_agree_to_rounding(tmp_path: Path) -> None:
    x = torch.from_numpy(autoregressions(2, 20)).reshape(2, 20, 5, 4)
    whole = ess(x)
    assert whole.shape == (5, 4)
    torch.testing.assert_close(whole, ess(x, memory=1), rtol=1e-12, atol=0)
    for chain in range(2):
        for draw in range(20):
            save_file({"w": x[chain, draw].contiguous()}, tmp_path / f"{chain}-{draw:02}.safetensors")
    files = [[tmp_path / f"{chain}-{draw:02}.safetensors" for draw in range(20)] for chain in range(2)]
    streamed = from_files(files, "w")
    assert streamed.shape == (2, 20, 5, 4)
    torch.testing.assert_close(whole, ess(streamed, memory=30_000), rtol=1e-12, atol=0)
    torch.testing.assert_close(rhat(x), rhat(streamed, memory=30_000), rtol=1e-12, atol=0)


def test_memory_is_bounded_by_the_block() -> None:
    widest = 0

    def read(first: int, last: int) -> torch.Tensor:
        nonlocal widest
        widest = max(widest, last - first)
        return torch.randn(2, 10, last - first, generator=torch.Generator().manual_seed(first))

    assert rhat(StreamedDraws((2, 10, 1000), read), memory=2 * 10 * 160 * 64).shape == (1000,)
    assert widest == 64


def test_where_there_is_no_number() -> None:
    x = torch.randn(2, 10, 3, generator=torch.Generator().manual_seed(0))
    x[0, 3, 0] = torch.nan
    x[:, :, 1] = 0.1
    assert rhat(x).isnan().tolist() == [True, True, False]
    assert ess(x).isnan().tolist() == [True, False, False]
    assert ess(x)[1] == 20  # as ArviZ says of a constant
    assert rhat(x[:1]).isnan().all()
    assert ess(x[:, :3]).isnan().all()
    x[0, :, 1] = 0.2  # chains stuck at two places
    assert rhat(x)[1] > 1e6


def test_a_slow_chain_has_the_effective_size_of_theory() -> None:
    # For an autoregression ESS = n (1 - phi) / (1 + phi). The mean of 400 estimates has a standard error near .8 %; it
    # misses by more than 5 % (six of them, truncation bias included) with probability below 1e-6.
    rng, phi, chains, draws = np.random.default_rng(1), 0.5, 4, 500
    x = rng.standard_normal((chains, draws, 400))
    x[:, 0] /= np.sqrt(1 - phi**2)
    for t in range(1, draws):
        x[:, t] += phi * x[:, t - 1]
    expected = chains * draws * (1 - phi) / (1 + phi)
    assert float(ess(torch.from_numpy(x), "mean").mean()) == pytest.approx(expected, rel=0.05)


def test_rhat_of_one_shifted_chain_is_that_of_its_formula() -> None:
    # Half-chains of n = 250 draws: six means at 0 and two at the shift s have variance 3 s^2 / 14, and 1 / n of noise.
    x = torch.randn(4, 500, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    n = 250
    for shift in (0.0, 1.0):
        x[0] += shift
        expected = math.sqrt((n - 1) / n + 3 * shift**2 / 14 + 1 / n)
        # The mean of 2000 values with a standard deviation near .013: 1e-3 is more than three standard errors.
        assert float(rhat(x, "split").mean()) == pytest.approx(expected, abs=1e-3)


def test_summary_counts_what_moves() -> None:
    x = torch.from_numpy(autoregressions(2, 30))[..., 12:].clone()
    x[0, :, 0] = 0.0
    summary = summarise(x)
    assert (summary["entries"], summary["still"]) == (7, 1)
    assert summary["rhat_max"] == pytest.approx(float(rhat(x[..., 1:]).max()))
    assert summary["ess_min"] == pytest.approx(float(ess(x[..., 1:]).min()))
    assert summarise(x[:1])["rhat_max"] is None
    assert summarise(x[:, :3])["ess_min"] is None
    assert summarise(torch.zeros(2, 10, 4)) == {
        **dict.fromkeys(("rhat_median", "rhat_max", "ess_median", "ess_min", "ess_tail_min")),
        "entries": 0,
        "still": 4,
    }


def test_of_weights_reads_a_run(tmp_path: Path) -> None:
    drawn = synthetic(tmp_path, [20, 20])
    with pytest.raises(ValueError, match="no weight draws of every chain"):
        diagnostics.of_weights(tmp_path)
    weights = torch.from_numpy(drawn["weight_norm"])  # (chain, draw, 2), of which the second is masked
    weights[..., 1] = 0.0
    for chain in range(2):
        for draw in range(20):
            state = {"fc1.weight": weights[chain, draw].reshape(1, 2), "counter": torch.tensor(3)}
            WeightStore(tmp_path / "draws").save(chain, draw, state)
    found = diagnostics.of_weights(tmp_path)
    assert set(found) == {"fc1.weight"}
    row = found["fc1.weight"]
    assert (row["size"], row["seen"], row["moving"]) == (2, 2, 1)
    assert row["rhat"] == pytest.approx([float(rhat(weights[..., :1]))] * 3)
    each = [float(ess(weights[c : c + 1, :, :1])) for c in range(2)]
    assert row["ess"][1] == pytest.approx(np.mean(each))
    functions = diagnostics.in_function_space(tmp_path)
    assert functions["logits"] == summarise(torch.from_numpy(drawn["logits"]))


def test_some_entries_of_a_large_parameter_stand_for_all(tmp_path: Path) -> None:
    """A thousand of 40,000: the 95 % quantile of a sample lies between the 93 and 97 % ones but with p = 0.004."""
    synthetic(tmp_path, [20, 20])
    draws = torch.randn(2, 20, 40_000, generator=torch.Generator().manual_seed(0))
    for chain in range(2):
        for draw in range(20):
            WeightStore(tmp_path / "draws").save(chain, draw, {"fc1.weight": draws[chain, draw].view(200, 200)})
    whole = diagnostics.of_weights(tmp_path, entries=None)["fc1.weight"]
    some = diagnostics.of_weights(tmp_path, entries=1000)["fc1.weight"]
    assert (whole["seen"], whole["size"]) == (40_000, 40_000)
    assert (some["seen"], some["moving"], some["size"]) == (1000, 1000, 40_000)
    below, above = rhat(draws).quantile(torch.tensor([0.93, 0.97], dtype=torch.float64)).tolist()
    assert below < some["rhat"][2] < above
    assert some == diagnostics.of_weights(tmp_path, entries=1000)["fc1.weight"]
    assert "40,000  1,000   1,000" in weights_table({"fc1.weight": some})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ess(torch.zeros(2, 10, 1), "median"), "choose one of bulk, tail, mean"),
        (lambda: rhat(torch.zeros(10)), r"shape \(10,\); give \(chains, draws"),
        (lambda: rhat(torch.zeros(2, 10, 0)), "there is no parameter"),
        (lambda: nested_rhat(torch.zeros(2, 10, 1), [0]), "name 1 chains; the draws have 2"),
        (lambda: nested_rhat(torch.zeros(3, 10, 1), [0, 1, 1]), "same number of chains"),
        (lambda: from_files([[], []], "w"), "at least one"),
    ],
)
def test_bad_input(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"torch.int64; give floating-point"):
        ess(torch.zeros(2, 10, 1, dtype=torch.int64))


def test_one_chain_counted_twice_is_refused() -> None:
    draws = torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(0))
    rhat(draws)
    draws[2] = draws[0]
    for statistic in (rhat, ess, mcse_mean, lambda x: nested_rhat(x[[0, 2]], [0, 1])):
        with pytest.raises(ValueError, match=r"chains 0 and [12] have the same draws: they are one chain"):
            statistic(draws)
    with pytest.raises(ValueError, match="one chain"):
        summarise(draws)


def test_whole_numbers_and_what_does_not_move_may_coincide() -> None:
    indicators = (torch.arange(50) % 3 == 0).float().expand(2, 50)
    assert bool(rhat(indicators).isfinite())
    masked = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0))
    masked[..., 0] = 0.25  # in every draw of every chain
    assert rhat(masked).isnan().tolist() == [True, False, False]
