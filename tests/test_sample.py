"""A person with a network, data and a deadline: each of them under twenty lines, and what they do wrong in words."""

import copy
import doctest
import gc
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset
from torch.utils.data import Dataset as TorchDataset

import sgmcmc_prune.posterior
import sgmcmc_prune.priors.spike_slab
import sgmcmc_prune.samplers.sghmc
from sgmcmc_prune import (
    Gaussian,
    Posterior,
    PruneConfig,
    SamplerConfig,
    ScheduleConfig,
    open_posterior,
    sample,
    sampling,
)
from sgmcmc_prune.chains import step_size
from sgmcmc_prune.chains.step_size import stable_step, train
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.data.handed import class_names
from sgmcmc_prune.likelihoods import Mixture, gaussian, predicted
from sgmcmc_prune.likelihoods.predicted import Predicted
from sgmcmc_prune.run import defaults
from sgmcmc_prune.run.config import NetworkChoice
from sgmcmc_prune.run.export import export

SHORT = ScheduleConfig(burn_in=40, cycles=1, explore=0, sample=80, relax=0, draws=8)
FORK = PruneConfig(explore=10.0, sample=10.0, relax=0.0, draws=2)


@pytest.fixture(autouse=True, scope="module")
def short_training() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_size, "FIT_STEPS", 400)
        yield


def regression_data(n: int = 60) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    y = x[:, 0] + 0.1 * torch.randn(n, generator=torch.Generator().manual_seed(1))
    return x, y


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    return sample(network(), regression_data(), likelihood="gaussian", schedule=SHORT, chains=2, progress=False)


def test_a_regression_of_ones_own(posterior: Posterior) -> None:
    x, _ = regression_data()
    assert len(posterior.draws) == 16
    assert posterior.draws[-1].keys() == posterior.draws[0].keys()
    assert {"rmse", "nll", "crps", "coverage", "single_rmse"} <= posterior.metrics["dense"].keys()
    predicted = posterior.predict(x[:5])
    low, high = predicted.interval(0.8)
    assert predicted.mean.shape == low.shape == (5, 1)
    assert bool((low < high).all())
    assert posterior.report().is_file()
    assert posterior.report(posterior.path.parent / "new" / "page.html").is_file()
    with pytest.raises(ValueError, match=r"rep: a report is a page; name it rep\.html"):
        posterior.report("rep")
    assert posterior.summary().index.str.startswith("outputs[").any()
    for layer, inclusion in posterior.inclusion().items():
        assert inclusion.probability.shape[0] == 2, layer
        assert bool(((inclusion.probability >= 0) & (inclusion.probability <= 1)).all())
    assert "RMSE" in str(posterior)
    assert "2 chains x 8 draws" in repr(posterior)


def test_the_examples_of_the_reference_give_what_they_say(posterior: Posterior) -> None:
    x, _ = regression_data()
    modules = (sgmcmc_prune.posterior, predicted, sgmcmc_prune.samplers.sghmc, sgmcmc_prune.priors.spike_slab)
    for module in modules:
        found = doctest.testmod(module, extraglobs={"posterior": posterior, "x": x})
        assert found.failed == 0, module.__name__
        assert found.attempted > 1


def test_inclusion_probabilities_are_a_variable_of_every_draw(posterior: Posterior) -> None:
    found = posterior.inference_data()["posterior"]
    averages = torch.cat([layer.probability for layer in posterior.inclusion().values()], 1)
    probability = torch.from_numpy(found["inclusion_probability"].mean("draw").values)
    torch.testing.assert_close(probability, averages.float(), atol=1e-5, rtol=0)
    assert list(found["group"].values[:2]) == ["network.0.weight[0, 0]", "network.0.weight[0, 1]"]
    assert found["inclusion_probability"].sizes["group"] == 24
    share = torch.from_numpy(found["share_included"].mean("draw").values)
    by_layer = torch.stack([layer.probability.mean(1) for layer in posterior.inclusion().values()], 1)
    torch.testing.assert_close(share.double(), by_layer, atol=1e-5, rtol=0)


def test_pruned_post_hoc_by_decision_and_in_the_chain(posterior: Posterior) -> None:
    x, _ = regression_data()
    half, median = posterior.prune(0.5), posterior.prune("median")
    assert half.sparsity == pytest.approx(0.5, abs=0.03)
    assert median.scores["decision"] == "median"
    forked = posterior.prune(0.5, in_chain=True, schedule=FORK, progress=False)
    assert forked.scores["members"] == 4
    said = [repr(pruned) for pruned in (half, median, forked, posterior.prune(0.5, criterion="magnitude"))]
    assert [text.partition(":")[0] for text in said] == [
        "<Pruned post hoc, inclusion probability",
        "<Pruned post hoc, inclusion probability, median",
        "<Pruned in the chain, expected log odds",
        "<Pruned post hoc, magnitude",
    ]
    assert said[2].endswith(f" % of the weights pruned, RMSE {forked.scores['rmse']:.4f}>")
    for pruned in (half, forked):
        network = pruned.network(1)
        zeros = {name: float((p == 0).float().mean()) for name, p in network.named_parameters() if p.ndim > 1}
        kept = {name: float(mask.float().mean()) for name, mask in pruned.masks[1].items()}
        assert zeros == pytest.approx({name: 1 - share for name, share in kept.items()})
        assert pruned.predict(x[:3]).mean.shape == (3, 1)
    with pytest.raises(ValueError, match="taken post hoc alone"):
        posterior.prune("median", in_chain=True)
    with pytest.raises(ValueError, match="conditional moves finished draws"):
        posterior.prune(0.5, in_chain=True, criterion="conditional")
    with pytest.raises(ValueError, match="inside"):
        posterior.prune(1.5)


def test_a_pruned_posterior_is_read_beside_the_dense_one(posterior: Posterior) -> None:
    dense, half = posterior.inference_data(), posterior.prune(0.5).inference_data()
    for group, name in (("posterior", "outputs"), ("log_likelihood", "y"), ("posterior_predictive", "y")):
        assert half[group][name].dims == dense[group][name].dims
        assert half[group][name].shape == dense[group][name].shape
    # ArviZ takes exp(-log-likelihood), which overflows float32 at 89.
    assert half["log_likelihood"]["y"].dtype == dense["log_likelihood"]["y"].dtype == "float64"
    assert bool((half["observed_data"]["y"] == dense["observed_data"]["y"]).all())
    means = [tree["posterior"]["outputs"].isel(output=0) for tree in (half, dense)]  # the other output is the noise
    assert not bool((means[0] == means[1]).any())
    whole = replace(posterior.prune(0.5), masks=[{}, {}]).inference_data()
    for group, name in (("posterior", "outputs"), ("log_likelihood", "y")):
        found, stored = (torch.from_numpy(tree[group][name].values) for tree in (whole, dense))
        torch.testing.assert_close(found, stored.to(found.dtype), atol=1e-5, rtol=1e-5)


def test_probes_are_labelled_by_their_places_in_the_given_data(posterior: Posterior) -> None:
    """Also where `sample` holds examples out."""
    tree, (x, _) = posterior.inference_data(), regression_data()
    places = tree["log_likelihood"]["probe"].values.tolist()
    assert bool((tree["constant_data"]["image"].values == x[places].numpy()).all())
    half = posterior.prune(0.5).inference_data()
    assert half["log_likelihood"]["y"].coords["probe"].equals(tree["log_likelihood"]["y"].coords["probe"])


class Fruit(TorchDataset[tuple[Tensor, Tensor]]):
    """Three classes by their names."""

    classes = ("apple", "fig", "plum")

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return regression_data()[0][index], torch.tensor(index % 3)


def test_classes_have_the_names_that_a_data_set_gives_them() -> None:
    part = torch.utils.data.Subset(Fruit(), list(range(45)))
    assert class_names(DataLoader(part), 3) == Fruit.classes
    assert class_names(part, 2) == ("apple", "fig")
    assert class_names(regression_data(), 3) == ()
    with pytest.raises(ValueError, match="classes has 3 names, apple, fig, plum, for 4 labels; give each its own"):
        class_names(part, 4)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    found = sample(net, part, likelihood="categorical", schedule=SHORT, chains=1, progress=False)
    tree = found.inference_data()
    assert tuple(tree["posterior"]["class"].values) == Fruit.classes
    first = int(tree["posterior"]["probe"][0])
    assert f"logits[{first}, plum]" in found.summary().index


class Named(torch.utils.data.Dataset[Any]):
    """Its targets are the names of the classes."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        return torch.zeros(3), ("fig", "plum")[index % 2]


@pytest.mark.parametrize(
    "data",
    [Named(), (torch.zeros(2, 3), ["fig", "plum"]), (torch.zeros(2, 3), np.array(["fig", "plum"]))],
    ids=["dataset", "list", "array"],
)
def test_targets_that_are_text_are_refused_in_words(data: Any) -> None:
    with pytest.raises(ValueError, match=r"data: targets are text, such as 'fig'; give labels 0, 1, \.\.\., and their"):
        sample(network(), data, likelihood="categorical", progress=False)


def test_the_mean_is_that_of_the_draws(posterior: Posterior) -> None:
    x, _ = regression_data()
    model = network()
    expected = []
    for draw in posterior.draws:
        model.load_state_dict({n.removeprefix("network."): v for n, v in draw.items() if n != "log_noise"})
        expected.append(model(x[:4]).detach().double())
    torch.testing.assert_close(posterior.predict(x[:4]).mean, torch.stack(expected).mean(0), rtol=1e-5, atol=1e-6)


def test_a_cnn_of_ones_own_and_a_loader(tmp_path: Path) -> None:
    x = torch.randn(48, 1, 20, generator=torch.Generator().manual_seed(2))
    y = (x[:, 0, :10].mean(1) > 0).long()
    net = nn.Sequential(nn.Conv1d(1, 4, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(16, 2))
    loader = DataLoader(TensorDataset(x, y), batch_size=12, shuffle=True)
    out = tmp_path / "run"
    first = sample(net, loader, likelihood="categorical", schedule=SHORT, chains=2, out=out, progress=False)
    assert first.predict(x[:7]).mean.shape == (7, 2)
    members = first.chains * first.num_draws
    assert repr(first.predict(x[:7])) == f"<Predicted, Categorical: 7 examples, {members} members>"
    assert "accuracy" in first.metrics["dense"]
    again = sample(net, loader, likelihood="categorical", schedule=SHORT, chains=2, out=out, progress=False)
    assert again.metrics == first.metrics
    with pytest.raises(ValueError, match="other data"):
        sample(net, (x + 1, y), likelihood="categorical", schedule=SHORT, chains=2, batch_size=12, out=out)
    with pytest.raises(ValueError, match="other settings"):
        sample(net, loader, likelihood="categorical", schedule=SHORT, chains=3, out=out)
    with pytest.raises(ValueError, match="sampled from objects"):
        open_posterior(out)
    way = r"open it by the same call, posterior = sgmcmc_prune\.sample\(\.\.\., out=.*\.network\(chain=0\) is the"
    with pytest.raises(ValueError, match=way):
        export(out, tmp_path / "net.pt2", NetworkChoice())
    other = nn.Sequential(nn.Flatten(), nn.Linear(20, 2))
    with pytest.raises(ValueError, match="another network or likelihood"):
        sample(other, loader, likelihood="categorical", schedule=SHORT, chains=2, out=out, progress=False)


@pytest.mark.parametrize("likelihood", ["bernoulli", "poisson", Gaussian("heteroscedastic"), Gaussian(0.3), "own"])
def test_other_likelihoods(likelihood: Any) -> None:
    x, y = regression_data(40)
    width = 2 if isinstance(likelihood, Gaussian) and likelihood.noise == "heteroscedastic" else 1
    if likelihood == "bernoulli":
        y = (y > 0).float()
    elif likelihood == "poisson":
        y = y.exp().round()
    elif likelihood == "own":
        likelihood = lambda outputs, targets: (outputs[:, 0] - targets).abs()  # noqa: E731
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, width))
    found = sample(net, (x, y), likelihood=likelihood, schedule=SHORT, chains=1, progress=False)
    assert torch.isfinite(torch.tensor(found.metrics["dense"]["nll"]))
    assert found.predict(x[:2]).mean.shape == (2, 1)


def test_the_same_seed_gives_the_same_draws_and_the_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    runs = [
        sample(network, regression_data(), likelihood="gaussian", schedule=SHORT, chains=1, seed=3, progress=False)
        for _ in range(2)
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(runs[0].draws[5].values(), runs[1].draws[5].values(), strict=True))


class Endless(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.zeros(3), torch.zeros(())


class Augmented(TorchDataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.randn(3), torch.zeros(())


def loader_with_replacement() -> "DataLoader[Any]":
    data = TensorDataset(*regression_data())
    return DataLoader(data, batch_size=10, sampler=RandomSampler(data, replacement=True))


def loader_of_a_part() -> "DataLoader[Any]":
    data = TensorDataset(*regression_data())
    return DataLoader(data, batch_size=10, sampler=torch.utils.data.SubsetRandomSampler(range(30)))


def with_a_nan(row: int, column: int) -> torch.Tensor:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    x[row, column] = float("nan")
    return x


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (DataLoader(Endless()), "has no length"),
        (Endless(), "has no length"),
        (loader_with_replacement(), "draws with replacement"),
        (loader_of_a_part(), "draws 30 of 60 examples"),
        (Augmented(), "other examples when"),
        ((torch.zeros(5, 3), torch.zeros(4)), "one target for each example"),
        ((with_a_nan(50, 1), torch.randn(60)), "data: input of example 50, column 1 is not finite"),
        ((torch.randn(60, 3), with_a_nan(9, 0)[:, 0]), "data: target of example 9 is not finite"),
        ((regression_data()[0], 1e4 * regression_data()[1]), "standardise them"),
        ((regression_data()[0], torch.randn(60, 2, 2)), r"\(n,\) or \(n, k\)"),
    ],
)
def test_data_that_cannot_be_a_posteriors_are_refused_in_words(data: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sample(network(), data, likelihood="gaussian", holdout=0.5, schedule=SHORT, progress=False)


def test_a_dropped_last_batch_is_said_in_words() -> None:
    loader = DataLoader(TensorDataset(*regression_data()), batch_size=25, drop_last=True)
    with pytest.warns(UserWarning, match="drops the last 10 of 60"):
        sample(network(), loader, likelihood="gaussian", schedule=SHORT, chains=1, progress=False)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"likelihood": "gausian"}, ValueError, "choose one of categorical"),
        ({"likelihood": Gaussian}, TypeError, "an ObservationModel or a function"),
        (
            {"likelihood": lambda f, y: (f[:, 0] - y).square().mean()},
            ValueError,
            "one negative log-likelihood for each",
        ),
        (
            {"likelihood": lambda f, y: (f - y).square().mean(1)},
            ValueError,
            r"beside 8 examples than beside 16; .*outputs have shape \(16, 1\) and targets \(16,\): does one",
        ),
        ({"likelihood": "categorical"}, ValueError, "give integers"),
        ({"model": "mlp"}, TypeError, "give an nn.Module"),
        ({"model": nn.Linear(3, 2)}, ValueError, r"returns shape \(16, 2\); it must be \(16, 1\)"),
        ({"data": [1, 2, 3]}, TypeError, "a torch Dataset or a DataLoader"),
        ({"holdout": 0.0}, ValueError, "give a share"),
        ({"holdout": 1.5}, ValueError, "give a share"),
    ],
)
def test_other_mistakes_are_one_line(change: dict[str, Any], kind: type[Exception], said: str) -> None:
    arguments = {"model": network(), "data": regression_data(), "likelihood": "gaussian"} | change
    with pytest.raises(kind, match=said) as refused:
        sample(**arguments, schedule=SHORT, progress=False)
    assert "\n" not in str(refused.value)


def test_the_package_offers_its_names_without_loading_torch() -> None:
    import subprocess
    import sys

    code = "import sgmcmc_prune, sys; assert 'torch' not in sys.modules; print(dir(sgmcmc_prune))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'sample'" in found
    assert sgmcmc_prune.sample is sample


def quick(model: Any, data: Any, likelihood: Any = "gaussian", **options: Any) -> Posterior:
    return sample(model, data, likelihood=likelihood, schedule=SHORT, chains=2, progress=False, **options)


def test_frozen_layers_are_kept_and_trained_ones_start_anew() -> None:
    body = nn.Sequential(nn.Linear(3, 6), nn.Tanh()).requires_grad_(False)
    found = quick(nn.Sequential(body, nn.Linear(6, 1)), regression_data())
    for chain in range(2):
        network: Any = found.run.model(chain)
        assert torch.equal(network.network[0][0].weight, body[0].weight)
    first, second = (found.run.model(chain).network[1].weight for chain in range(2))  # type: ignore[union-attr, index]
    assert not torch.equal(first, second)


def test_a_callable_must_make_the_network_anew() -> None:
    one = network()
    with pytest.raises(ValueError, match="the same parameters at every call"):
        quick(lambda: one, regression_data())


def test_a_callable_that_seeds_itself_is_named() -> None:
    def alike() -> nn.Module:
        torch.manual_seed(0)
        return network()

    with pytest.warns(
        UserWarning, match=r"0\.weight, 2\.weight start alike in every chain, since model\(\) makes them"
    ):
        quick(alike, regression_data())


def test_tokens_stay_integers() -> None:
    tokens = torch.randint(0, 7, (60, 5), generator=torch.Generator().manual_seed(0))
    labels = (tokens[:, 0] > 3).long()
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(20, 2))
    found = quick(model, (tokens, labels), "categorical")
    assert found.predict(tokens[:3]).mean.shape == (3, 2)
    with pytest.raises(ValueError, match="was sampled on integers"):
        found.predict(tokens[:3].float())
    for wrong in (tokens[:3] + 7, tokens[:3] - 1):
        with pytest.raises(ValueError, match=r"^inputs hold integers from .* an embedding needs one for every token$"):
            found.predict(wrong)
    far = tokens.clone()
    far[50, 2] = 7
    for data, test, said in ((far, tokens, "training inputs hold integers from 0 to 7"), (tokens, far, "test inputs")):
        with pytest.raises(ValueError, match=said):
            quick(model, (data, labels), "categorical", test=(test, labels))
    with pytest.raises(ValueError, match="a network of numbers needs floats"):
        quick(network(), (tokens[:, :3], labels.float()))


def test_a_rare_class_is_not_held_out_as_a_whole() -> None:
    x, _ = regression_data()
    labels = torch.zeros(60, dtype=torch.long)
    for rare in range(60):  # whichever example it is
        y = labels.clone()
        y[rare] = 1
        held = sampling._held_out(x, y, 0.5, 0)
        assert set(y[~held].tolist()) == {0, 1}
        assert 28 <= int(held.sum()) <= 30


def test_a_directory_is_gone_on_with_replaced_or_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    before = quick(network(), regression_data(), out=out).draws[-1]
    with pytest.raises(ValueError, match=r"by seed and holdout\); give the same, another directory, or overwrite it"):
        quick(network(), regression_data(), out=out, seed=1)
    after = quick(network(), regression_data(), out=out, seed=1, overwrite=True).draws[-1]
    assert not all(torch.equal(before[name], after[name]) for name in before)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds files and no run; give a new directory"):
            quick(network(), regression_data(), out=tmp_path / "other", overwrite=overwrite)
    assert (tmp_path / "other" / "letter.txt").read_text() == "mine"


def test_another_fork_is_another_fork(posterior: Posterior) -> None:
    layerwise = PruneConfig(explore=10.0, sample=10.0, relax=0.0, draws=2, allocation="layerwise")
    shares = []
    for schedule in (FORK, layerwise):
        pruned = posterior.prune(0.5, in_chain=True, schedule=schedule, progress=False)
        shares.append([float(kept.float().mean()) for kept in pruned.masks[0].values()])
    assert shares[1] == pytest.approx([0.5, 0.5], abs=0.04)
    with pytest.raises(ValueError, match="copies the per-layer sparsity"):
        posterior.prune(0.5, in_chain=True, criterion="random", progress=False)


def test_a_fork_is_as_long_beside_a_given_schedule_as_beside_the_default(posterior: Posterior) -> None:
    """120 steps of 34,000: the 2,000 and 1,000 steps of a fork become 7 and 4, with no more draws than steps."""
    pruned = posterior.prune(0.5, in_chain=True, progress=False)
    assert pruned.scores["members"] == 8
    lengths = pruned.run.schedule("expected_log_odds")
    assert (lengths.explore, lengths.sample, lengths.relax) == (7, 4, 0)
    for batch_size in (60, 16):  # a schedule's lengths are in epochs, and that of the default is in steps
        epochs = batch_size / 60
        default = defaults.default_settings(batch_size, 60, defaults.default_prior(network()), None)
        half = replace(default.schedule, burn_in=2000 * epochs, sample=15_000 * epochs)
        fork = defaults.default_settings(batch_size, 60, default.prior, half).prune
        assert (default.prune.explore, default.prune.sample, default.prune.draws) == (2000 * epochs, 1000 * epochs, 50)
        assert (fork.explore, fork.sample, fork.draws) == (1000 * epochs, 500 * epochs, 50)


def test_predict_takes_what_the_network_was_sampled_on(posterior: Posterior) -> None:
    x, _ = regression_data()
    assert torch.equal(posterior.predict(x.numpy()).mean, posterior.predict(x).mean)
    for wrong, said in ((x[:, :2], r"give \(n, 3\)"), (x[:0], "give"), (x * float("inf"), "not finite")):
        with pytest.raises(ValueError, match=said):
            posterior.predict(wrong)


def test_files_live_as_long_as_what_was_taken_from_them() -> None:
    found = quick(network(), regression_data())
    copied, tree, draws = copy.deepcopy(found), found.inference_data(), found.draws
    with pytest.raises(TypeError, match="keep it with sample"):
        pickle.dumps(found)
    directory = found.path
    del found
    gc.collect()
    assert len(copied.draws) == len(draws) == 16
    del copied, draws
    gc.collect()
    assert not directory.exists()
    assert bool(torch.from_numpy(tree["log_likelihood"]["y"].values).isfinite().all())


def test_an_interval_holds_its_probability_with_few_members() -> None:
    """Of normal draws from one member: the ends are those of the distribution to 0.2 (1,000 samples)."""
    model, outputs = Gaussian("heteroscedastic"), torch.zeros(3, 2)
    low, high = Predicted(model, Mixture((outputs, outputs))).interval(0.9)
    torch.testing.assert_close(low, torch.full_like(low, -1.645), atol=0.25, rtol=0)
    torch.testing.assert_close(high, torch.full_like(high, 1.645), atol=0.25, rtol=0)


def test_images_are_normalised_for_the_network_and_for_predictions() -> None:
    images = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = quick(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), (images, torch.arange(40) % 2), "categorical")
    inputs = found.run.data.dataset.as_inputs(images[:3])
    torch.testing.assert_close(found.predict(images[:3]).mean, found.predict(inputs).mean)
    with pytest.raises(ValueError, match="raw pixels"):
        found.predict(images[:3].float())


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"prior": "gaussian"}, TypeError, r"give a sgmcmc_prune\.PriorConfig"),
        ({"seed": 1.5}, TypeError, "give an integer"),
        ({"batch_size": 0}, ValueError, "batch_size is 0; choose 1 to"),
        ({"device": "cuda:7"}, ValueError, "CUDA devices"),
        ({"data": (regression_data()[0], regression_data()[1] + 300)}, ValueError, "mean 300"),
        ({"data": (regression_data()[0], torch.ones(60))}, ValueError, "nothing to learn"),
        ({"model": nn.Linear(3, 1).requires_grad_(False)}, ValueError, "is frozen"),
        ({"likelihood": lambda f, y: f[:, 0] * float("nan")}, ValueError, "not finite at the random start"),
        ({"likelihood": lambda f, y: torch.zeros(len(f))}, ValueError, "has no gradient"),
    ],
)
def test_more_mistakes_are_one_line(change: dict[str, Any], kind: type[Exception], said: str) -> None:
    arguments = {"model": network(), "data": regression_data(), "likelihood": "gaussian"} | change
    with pytest.raises(kind, match=said) as refused:
        sample(**arguments, schedule=SHORT, progress=False)
    assert "\n" not in str(refused.value)


def test_a_network_that_cannot_be_copied_is_refused_like_a_callable_that_makes_it() -> None:
    def make() -> nn.Module:
        with pytest.warns(FutureWarning, match="weight_norm"):
            return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 6)), nn.Linear(6, 1))

    for model in (make(), make):
        with pytest.raises(ValueError, match=r"the network cannot be copied .*parametrizations do not$"):
            sample(model, regression_data(), likelihood="gaussian", schedule=SHORT, progress=False)


def test_what_a_loader_and_inputs_do_to_a_chain_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = regression_data()
    options = {
        "likelihood": gaussian(0.5),
        "schedule": SHORT,
        "chains": 1,
        "sampler": SamplerConfig(lr=1e-3, lr_explore=1e-3, lr_min=1e-3),
    }
    sample(network(), DataLoader(TensorDataset(x, y), batch_size=12), **options)
    assert "batches of 12, as the DataLoader makes them; batch_size=54 has less" in capsys.readouterr().out
    whole = sample(network(), DataLoader(TensorDataset(x, y), batch_size=60), **options)  # more than are not held out
    assert whole.run.config.data.batch_size == 54
    assert "as the DataLoader makes them" not in capsys.readouterr().out
    with pytest.warns(UserWarning, match=r"input 1 has mean .* \(1 of 3 inputs are as large\), .*; standardise them"):
        sample(network(), (x * torch.tensor([1.0, 1e4, 1.0]), y), **options, progress=False)


def test_the_step_is_a_share_of_the_stability_limit() -> None:
    """Of least squares with known noise the Hessian is X'X / (N s^2): its largest eigenvalue in closed form."""
    x, y = regression_data()
    model = nn.Linear(3, 1, bias=False)
    stream = MinibatchStream(x, y, len(x), 0, 0)
    largest = float(torch.linalg.eigvalsh(x.T @ x / len(x) / 0.25).max())
    found = stable_step(model, gaussian(0.25), stream, 0.5, momentum=0.9, share=0.2)
    assert found == pytest.approx(0.2 * 2 * 1.9 / (largest + 0.5), rel=0.01)


def test_a_batch_holds_what_a_step_can_afford() -> None:
    """All of many examples of a small network, 256 of a large one's; a network that fits no example is told later."""
    x = torch.zeros(1, 3)
    assert defaults.affordable_batch(network(), x, 6000) == 6000
    assert defaults.affordable_batch(network(), x, 10**6) == 20_000
    wide = nn.Sequential(nn.Linear(3, 5000), nn.Linear(5000, 10))
    assert defaults.affordable_batch(wide, x, 6000) == 256
    assert defaults.affordable_batch(nn.Linear(4, 1), x, 6000) == 256
    assert defaults.affordable_batch(wide, x, 5000) == 5000
    assert defaults.affordable_batch(network(), torch.zeros(1, 3, dtype=torch.long), 6000) == 256


def test_the_step_suits_where_a_chain_goes_not_only_the_mode() -> None:
    """Classes that can be told apart have a flat mode: a step that suits it heated such chains to 10^12.

    Where they went the weights were large and the curvature low: heat is looked at, too.
    """
    labels = torch.arange(120) % 3
    images = torch.randn(120, 1, 6, 6, generator=torch.Generator().manual_seed(0)) + labels.view(-1, 1, 1, 1)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    found = quick(net, (images, labels), "categorical")
    assert found.run.config.sampler.lr < 0.5
    for name in ("kinetic_temperature", "configurational_temperature"):  # chains are short, and the seed is fixed
        assert 0.7 < found.metrics["diagnostics"][name] < 1.4


def test_a_start_does_not_know_its_examples_by_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide network fits 80 noisy targets exactly, and its learned noise with them; the start keeps most of the noise.

    So a step that is stable there is larger.
    """
    monkeypatch.setattr(step_size, "FIT_STEPS", 1500)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(80, 5, generator=g)
    y = x[:, :1] + 0.5 * torch.randn(80, 1, generator=g)

    def start(fewest: int) -> tuple[float, float]:
        monkeypatch.setattr(step_size, "FEWEST", fewest)
        torch.manual_seed(0)
        likelihood, stream = Gaussian(), MinibatchStream(x, y, len(x), 0, 0)
        model = likelihood.completed(nn.Sequential(nn.Linear(5, 60), nn.Tanh(), nn.Linear(60, 1)), 1)
        train(model, likelihood, stream)
        assert model.training
        noise = float(model(x)[:, 1].detach().exp().mean())
        return noise, stable_step(model, likelihood, stream, 1.0, momentum=0.99, share=0.1)

    (by_heart, small), (noise, step) = start(fewest=10**6), start(fewest=50)
    assert by_heart < 0.1 < 0.3 < noise < 0.8
    assert step > 5 * small


def test_a_training_is_a_function_of_its_key_and_leaves_the_generator_alone() -> None:
    x, y = regression_data()
    before, ends = torch.get_rng_state(), []
    for _ in range(2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        state = torch.get_rng_state()
        train(model, gaussian(), MinibatchStream(x, y, 10, 1, 2))
        assert torch.equal(state, torch.get_rng_state())
        ends.append(model[0].weight.detach().clone())
    assert torch.equal(*ends)
    torch.set_rng_state(before)
