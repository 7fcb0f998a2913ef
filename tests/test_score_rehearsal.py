"""A likelihood of one's own that is scored in a wrong way: refused before a run, or without an interval."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from small_run import small
from torch import Tensor, nn

from sgmcmc_prune import cli, sample
from sgmcmc_prune.chains.rehearsal import rehearse
from sgmcmc_prune.likelihoods import Gaussian, ObservationModel
from sgmcmc_prune.run.headline import headline
from sgmcmc_prune.run.main import run


class Absolute(ObservationModel):
    """Laplace noise, judged by its mean absolute error and NLL."""

    headings: ClassVar[dict[str, str]] = {"mae": "MAE", "nll": "NLL"}

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.flatten(1) - targets.flatten(1).to(outputs)).abs().sum(1)

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        return outputs

    def errors(self, prediction: Any, targets: Tensor) -> Tensor:
        return (self.expected_target(prediction) - targets).abs().mean(1)

    def score(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, Any]:
        mae = float(self.errors(prediction, targets).mean())
        return {"mae": mae, "nll": float(self.mixture_nll(prediction, targets).mean())}


class OldMix(Absolute):
    def score(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, Any]:
        return super().score(prediction, targets) | {"nll": self.mixture_nll(prediction, targets)}


def scoring(**changed: Any) -> ObservationModel:
    """With other scores; a heading that is None is left out."""

    class Own(Absolute):
        def score(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, Any]:
            scores = super().score(prediction, targets) | changed
            return {key: value for key, value in scores.items() if value is not None}

    return Own()


def adding(change: Any) -> ObservationModel:
    """Whose examples add to the MAE what `change` makes of their errors."""

    class Own(Absolute):
        def each(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> Any:
            return change(self.errors(prediction, targets))

    return Own()


def numbers(n: int = 80) -> tuple[tuple[Tensor, Tensor], ...]:
    g = torch.Generator().manual_seed(0)
    weights, x, z = (torch.randn(size, 6, generator=g) for size in (1, n, 40))
    return tuple((part, part @ weights.T + torch.randn(len(part), 1, generator=g)) for part in (x, z))


def net(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, num_classes))


def rehearsed(likelihood: ObservationModel) -> None:
    torch.manual_seed(0)
    rehearse(net((6,), 1), *numbers()[0], likelihood, 1)


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        (OldMix(), r"score 'nll' of OldMix is a tensor of shape \(16,\); give its mean"),
        (scoring(mae=torch.tensor(1.0)), r"score 'mae' of Own is a tensor of shape \(\); give a float"),
        (scoring(mae="small"), "score 'mae' of Own is a str; give a float"),
        (scoring(nll=None), "`score` of Own gives no 'nll', which is one of its headings"),
        (adding(lambda e: [1.0]), "`each` of Own gives a list; it must give a mapping by name"),
        (adding(lambda e: {"mae": float(e.mean())}), r"`each` of Own gives a float for 'mae'; give a tensor \(16,\)"),
        (adding(lambda e: {"mae": e.tolist()}), r"`each` of Own gives a list for 'mae'; give a tensor \(16,\)"),
        (adding(lambda e: {"mae": e[:, None]}), r"`each` of Own gives shape \(16, 1\) for 'mae'; give \(16,\)"),
        (adding(lambda e: {"mae": e[:5]}), r"`each` of Own gives shape \(5,\) for 'mae'; give \(16,\)"),
        (adding(lambda e: e.nothing), "Own cannot score a prediction of 16 training examples: AttributeError"),
    ],
)
def test_scores_of_a_wrong_form_are_refused_in_one_line(likelihood: ObservationModel, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        rehearsed(likelihood)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "likelihood",
    [
        Absolute(),
        scoring(mae=float("nan"), more=float("inf")),
        adding(lambda e: {}),
        adding(lambda e: {"mae": e}),
        adding(lambda e: {"mae": e.numpy()}),
    ],
)
def test_scores_that_are_numbers_pass(likelihood: ObservationModel) -> None:
    rehearsed(likelihood)


def test_a_run_and_a_sample_are_refused_before_there_is_a_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, out = "test_score_rehearsal", str(tmp_path / "out")
    own = ["--data.name", f"{name}:numbers", "--model.name", f"{name}:net", "--likelihood", f"{name}:OldMix"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", "demo", *own, "--data.validation", "10", "--data.batch-size", "10", "--out", out])
    assert stopped.value.code == 2
    assert "score 'nll' of OldMix is a tensor of shape (10,); give its mean" in capsys.readouterr().err
    with pytest.raises(TypeError, match="score 'nll' of OldMix is a tensor"):
        sample(net((6,), 1), numbers()[0], likelihood=OldMix(), out=out)
    assert not (tmp_path / "out").exists()


class InMillimetres(Gaussian):
    """Its own RMSE under a key whose squared errors it inherits."""

    def score(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, float]:
        scores = super().score(prediction, targets, unit)
        return {**scores, "rmse": 1000 * scores["rmse"]}


def test_a_score_that_is_not_what_its_examples_add_up_to_has_no_interval(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "data.name": "test_score_rehearsal:numbers",
        "data.validation": 10,
        "data.batch_size": 10,
        "model.name": "test_score_rehearsal:net",
        "prior.spike_variance": 1e-2,
        "prune.targets": (0.5,),
        "prune.in_chain": (),
        "prune.post_hoc": ("magnitude",),
        "chains": 1,
    }
    found = {}
    for name in ("gaussian", "test_score_rehearsal:InMillimetres"):
        metrics = run(small(likelihood=name, **changes), tmp_path / name.rsplit(":", maxsplit=1)[-1], progress=False)
        found[name] = metrics
    plain, own = found.values()
    assert own["dense"]["rmse"] == 1000 * plain["dense"]["rmse"]
    assert plain["dense"]["half_width"] == {"rmse": plain["dense"]["half_width"]["rmse"], **own["dense"]["half_width"]}
    assert plain["pruned"][0]["paired"].keys() - own["pruned"][0]["paired"].keys() == {"rmse"}
    assert "mean_of_targets" in plain
    assert "mean_of_targets" not in own
    assert "worse than predicting the mean" not in headline(own)[0]
