"""The simulated designs, and one variable-selection experiment at tiny size."""

import json
from pathlib import Path

import pytest
import torch

from sgmcmc_prune.data.seeding import seeded_generator
from sgmcmc_prune.data.simulated import DESIGNS, simulate, truncated_normal

NUM_DATA = 4000


def test_inputs_correlate_at_one_half() -> None:
    # The Fisher transform of one correlation has standard deviation 1 / sqrt(n - 3): 780 pairs beyond 5 sigma with
    # probability under 5e-4 (Bonferroni), at a fixed seed.
    inputs, _ = simulate(DESIGNS[1], NUM_DATA, seed=0)
    correlation = torch.corrcoef(inputs[:, :40].T.double())
    pairs = correlation[torch.triu(torch.ones(40, 40), 1) > 0]
    error = (pairs.atanh() - torch.tensor(0.5).atanh()).abs() * (NUM_DATA - 3) ** 0.5
    assert float(error.max()) < 5
    assert inputs.var(0).mean() == pytest.approx(1, abs=0.1)


def test_normals_are_truncated() -> None:
    values = truncated_normal((100_000,), seeded_generator("test", 0), bound=1.0)
    assert float(values.abs().max()) <= 1
    # Variance of a standard normal on [-1, 1]: 1 - 2 phi(1) / (2 Phi(1) - 1) = 0.2912; the bound is over 8 sigma.
    assert float(values.var()) == pytest.approx(0.2912, abs=0.007)
    with pytest.raises(ValueError, match="bound is 0"):
        truncated_normal((1,), seeded_generator("test", 0), bound=0)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_noise_is_standard_and_differs_between_splits(number: int) -> None:
    design = DESIGNS[number]
    noise = []
    for split in ("train", "test"):
        inputs, targets = simulate(design, NUM_DATA, 3, split)
        noise.append(targets - design.signal(inputs))
    for values in noise:
        assert float(values.mean()) == pytest.approx(0, abs=5 / NUM_DATA**0.5)
        assert float(values.var()) == pytest.approx(1, abs=5 * (2 / NUM_DATA) ** 0.5)
    assert abs(float(torch.corrcoef(torch.stack(noise))[0, 1])) < 5 / NUM_DATA**0.5


@pytest.mark.parametrize("number", DESIGNS)
def test_data_depend_on_seed_and_split_alone(number: int) -> None:
    first, again = simulate(DESIGNS[number], 10, 1), simulate(DESIGNS[number], 10, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (simulate(DESIGNS[number], 10, 2), simulate(DESIGNS[number], 10, 1, "test")):
        assert not torch.isclose(first[0], other[0]).any()
    assert first[0].shape == (10, DESIGNS[number].num_inputs)
    assert first[0].dtype == first[1].dtype == torch.float32


@pytest.mark.parametrize("number", DESIGNS)
def test_signal_depends_on_the_support_alone(number: int) -> None:
    design = DESIGNS[number]
    inputs, _ = simulate(design, 50, 0)
    changed = inputs.clone()
    changed[:, len(design.support) :] = 0
    assert torch.equal(design.signal(inputs), design.signal(changed))
    for index in design.support:
        changed = inputs.clone()
        changed[:, index] += 0.5
        assert not torch.allclose(design.signal(inputs), design.signal(changed))


def test_third_design_is_binary_and_nonzero_size_is_needed() -> None:
    _, targets = simulate(DESIGNS[3], NUM_DATA, 0)
    assert set(targets.tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match="num_data is 0"):
        simulate(DESIGNS[3], 0, 0)


def test_experiment_runs_at_tiny_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from experiments.ke_fan.example1 import SETTINGS
    from experiments.ke_fan.examples import METHODS, main

    main(SETTINGS, ["--tiny", "--seeds", "1", "--out", str(tmp_path)])
    assert "recovered" in capsys.readouterr().out
    results = json.loads((tmp_path / "ke_fan_example1.json").read_text())
    assert [run["method"] for run in results["runs"]] == list(METHODS)
    for run in results["runs"]:
        assert run["true_positives"] <= 5
        assert 0 <= run["sparsity"] < 1
        assert run["kept"] == sorted(set(run["kept"]))
    kept = [row[1] for row in results["runs"][0]["trace"]]
    assert kept == sorted(kept, reverse=True)  # an input that was removed never comes back
