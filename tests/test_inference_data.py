"""A stored run through ArviZ: only whole draws, its numbers unchanged, words where there is no number."""

from pathlib import Path

import arviz_base
import arviz_stats
import numpy as np
import pandas
import pytest

from sgmcmc_prune.diagnostics.inference_data import format_table, load, summary
from sgmcmc_prune.store.draws import DrawStore, Group, Variable

LAYERS = ["fc1.weight", "fc2.weight"]


def synthetic(path: Path, lengths: list[int]) -> dict[str, np.ndarray]:
    """Store a run whose chains have reached `lengths` draws; return what was drawn."""
    chains, draws = len(lengths), max(lengths)
    rng = np.random.default_rng(0)
    drawn = {
        "inclusion_rate": np.full((chains, draws, 2), [0.1, 0.2], dtype="float32"),
        "spike_variance": np.full((chains, draws, 2), np.nan, dtype="float32"),
        "weight_norm": rng.normal(size=(chains, draws, 2)).astype("float32"),
        "logits": rng.normal(size=(chains, draws, 3, 2)).astype("float32"),
    }
    dims = {"logits": ("probe", "class")}
    variables = {name: Variable(dims.get(name, ("layer",)), x.shape[2:]) for name, x in drawn.items()}
    probability = {"probability": Variable(("probe", "class"), (3, 2))}
    heat = {"excess_temperature": Variable(("parameter",), (1,))}
    groups = {
        "posterior": Group("draw", draws + 5, variables),
        "posterior_predictive": Group("draw", draws + 5, probability),
        "sample_stats": Group("draw", draws + 5, heat),
        "training": Group("record", 10, {"loss": Variable()}),
    }
    store = DrawStore.create(path / "posterior.zarr", groups, chains, coords={"layer": LAYERS, "parameter": LAYERS[:1]})
    for chain, length in enumerate(lengths):
        for draw in range(length):
            store.append("posterior", chain, draw, {name: x[chain, draw] for name, x in drawn.items()})
            store.append(
                "posterior_predictive", chain, draw, {"probability": 1 / (1 + drawn["logits"][chain, draw] ** 2)}
            )
            store.append("sample_stats", chain, draw, {"excess_temperature": [0.0]})
        store.append("training", chain, 0, {"loss": 1.0})
    store.flush()
    return drawn


def test_load_keeps_the_draws_all_chains_have(tmp_path: Path) -> None:
    drawn = synthetic(tmp_path, [30, 20])
    tree = load(tmp_path)
    assert set(tree.children) == {"posterior", "posterior_predictive", "sample_stats", "training"}
    np.testing.assert_array_equal(tree["posterior"]["logits"], drawn["logits"][:, :20])
    assert tree["training"].sizes["record"] == 1
    assert tree["posterior"].attrs["inference_library"] == "sgmcmc_prune"


def test_a_store_of_old_has_flags_too(tmp_path: Path) -> None:
    """Its divergences are integers, by which ArviZ 0.23 would index."""
    groups = {"sample_stats": Group("draw", 3, {"diverging": Variable(dtype="int64")})}
    store = DrawStore.create(tmp_path / "posterior.zarr", groups, 1)
    for draw, value in enumerate((0, False)):  # a chain that goes on there writes a flag
        store.append("sample_stats", 0, draw, {"diverging": value})
    store.flush()
    flags = load(tmp_path)["sample_stats"]["diverging"]
    assert (flags.dtype, flags.values.tolist()) == (bool, [[False, False]])


def test_summary_is_that_of_arviz(tmp_path: Path) -> None:
    drawn = synthetic(tmp_path, [50, 50])
    table = summary(tmp_path, probes=1)
    data = arviz_base.from_dict(
        {"posterior": {"weight_norm": drawn["weight_norm"].astype("float64")}},
        dims={"weight_norm": ["layer"]},
        coords={"layer": LAYERS},
    )
    expected = arviz_stats.summary(data, round_to="none")
    rows = table.loc[[f"weight_norm[{layer}]" for layer in LAYERS]]
    assert list(rows.index) == list(expected.index)
    np.testing.assert_allclose(rows[expected.columns], expected, rtol=1e-12)
    assert [label for label in table.index if label.startswith("logits")] == ["logits[0, 0]", "logits[0, 1]"]
    assert not any(label.startswith("spike_variance") for label in table.index)


def test_held_hyperparameters_have_words_for_diagnostics(tmp_path: Path) -> None:
    synthetic(tmp_path, [50, 50])
    table = summary(tmp_path)
    held = table.loc["inclusion_rate[fc2.weight]"]
    assert held["mean"] == pytest.approx(0.2)
    assert held[["ess_bulk", "ess_tail", "r_hat", "mcse_mean", "mcse_sd"]].isna().all()
    assert held["note"] == "constant within a chain"
    assert (table.loc[table.index.str.startswith("weight_norm"), "note"] == "").all()
    lines = format_table(table).splitlines()
    assert len(lines) == len(table) + 1 + 2 * (table["r_hat"] > 1.01).any()
    assert "constant within a chain" in lines[1]
    assert "nan" not in format_table(table)


def test_rhat_above_the_threshold_is_marked_and_explained() -> None:
    table = pandas.DataFrame({"mean": [0.1, 0.2, 0.3], "r_hat": [1.011, 1.01, np.nan], "note": ["", "", "constant"]})
    lines = format_table(table).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["mean", "r_hat", "note"],
        ["0", "0.1", "1.011", "!"],
        ["1", "0.2", "1.01"],
        ["2", "0.3", "-", "constant"],
    ]
    assert lines[4] == ""
    assert lines[5].startswith("! R-hat above 1.01 (1 of 2): the chains, or their halves, disagree.")
    assert "!" not in format_table(table.iloc[1:])


def test_few_draws_and_one_chain(tmp_path: Path) -> None:
    synthetic(tmp_path / "few", [3, 3])
    assert set(summary(tmp_path / "few")["note"]) == {"fewer than 4 draws"}
    synthetic(tmp_path / "nine", [9, 9])
    nine = summary(tmp_path / "nine").loc["logits[0, 0]"]
    assert nine["note"] == "under 10 draws a chain: no ESS"
    assert nine[["ess_bulk", "ess_tail", "mcse_mean"]].isna().all()
    assert np.isfinite(nine["r_hat"])
    synthetic(tmp_path / "one", [20])
    table = summary(tmp_path / "one")
    assert table.loc["logits[0, 0]", "note"] == "one chain: no R-hat"
    assert np.isfinite(table.loc["logits[0, 0]", "ess_bulk"])


def test_no_run_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run directory"):
        load(tmp_path)
    (tmp_path / "posterior.zarr").mkdir()
    with pytest.raises(ValueError, match="is not a run directory"):
        load(tmp_path)
    synthetic(tmp_path / "young", [5, 0])
    with pytest.raises(ValueError, match="no draw that all chains have reached"):
        summary(tmp_path / "young")
    synthetic(tmp_path / "run", [5, 5])
    with pytest.raises(ValueError, match="none of the variables"):
        summary(tmp_path / "run", variables=["absent"])


def test_a_negative_number_of_probes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="probes is -1"):
        summary(tmp_path, probes=-1)


def test_inclusion_probabilities_open_in_arviz(tmp_path: Path) -> None:
    """By chain and cycle; their mean is what the run keeps, and a summary of the shares has a row for each layer."""
    import torch
    from arviz_stats import summary as table
    from small_run import small

    from sgmcmc_prune.diagnostics.inclusion_data import inclusion_data
    from sgmcmc_prune.run.decide import inclusion_averages
    from sgmcmc_prune.run.directory import load_averages
    from sgmcmc_prune.run.main import run
    from sgmcmc_prune.store.places import RunPlaces

    config = small(**{"prune.in_chain": (), "prune.post_hoc": (), "schedule.cycles": 4, "schedule.draws": 2})
    run(config, tmp_path / "run", progress=False)
    tree = inclusion_data(tmp_path / "run")
    posterior = tree["posterior"].to_dataset()
    assert posterior["linear.weight"].dims == ("chain", "draw", "linear.weight_group")
    assert dict(posterior.sizes) == {"chain": 2, "draw": 4, "layer": 1, "linear.weight_group": 7840}
    for chain in range(2):
        kept = inclusion_averages(load_averages(RunPlaces(tmp_path / "run"), chain))["linear.weight"].included
        mean = torch.from_numpy(posterior["linear.weight"].values[chain]).mean(0)
        torch.testing.assert_close(mean.double(), kept.cpu(), atol=1e-6, rtol=1e-5)
    assert list(table(tree, var_names=["share_included"]).index) == ["share_included[linear.weight]"]
    with pytest.raises(ValueError, match="no sparse layer nothing; it has linear"):
        inclusion_data(tmp_path / "run", layers=["nothing"])
    with pytest.raises(ValueError, match="is not a run directory"):
        inclusion_data(tmp_path)
