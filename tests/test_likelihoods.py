"""Likelihoods against `torch.distributions`."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal

from sgmcmc_prune.likelihoods import Likelihood, bernoulli, categorical, check_targets, gaussian, mean_nll

OUTPUTS = torch.tensor([-30.0, -2.0, -0.1, 0.0, 0.4, 3.0, 25.0, 1.0])
BINARY = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0])


def test_categorical() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 4
    targets = torch.arange(50) % 7
    nll = categorical(logits, targets)
    assert nll.shape == (50,)
    torch.testing.assert_close(nll, -Categorical(logits=logits).log_prob(targets))


@pytest.mark.parametrize("outputs", [OUTPUTS, OUTPUTS[:, None]], ids=["n", "n by 1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_bernoulli(outputs: Tensor, dtype: torch.dtype) -> None:
    nll = bernoulli(outputs, BINARY.to(dtype))
    assert nll.shape == (8,)
    torch.testing.assert_close(nll, -Bernoulli(logits=OUTPUTS).log_prob(BINARY))


@pytest.mark.parametrize("variance", [0.04, 1.0, 9.0])
@pytest.mark.parametrize("outputs", [OUTPUTS, OUTPUTS[:, None]], ids=["n", "n by 1"])
@pytest.mark.parametrize("targets", [BINARY, BINARY[:, None]], ids=["n", "n by 1"])
def test_gaussian(variance: float, outputs: Tensor, targets: Tensor) -> None:
    nll = gaussian(variance)(outputs, targets)
    assert nll.shape == (8,)
    torch.testing.assert_close(nll, -Normal(OUTPUTS, variance**0.5).log_prob(BINARY))


def test_gaussian_gradient_has_no_stray_two() -> None:
    outputs = OUTPUTS.clone().requires_grad_()
    gaussian(2.0)(outputs, BINARY).sum().backward()
    torch.testing.assert_close(outputs.grad, (OUTPUTS - BINARY) / 2)


def test_mean_nll_is_the_mean_over_the_batch() -> None:
    expected = -Normal(OUTPUTS, 1.0).log_prob(BINARY).mean()
    torch.testing.assert_close(mean_nll(gaussian(), OUTPUTS, BINARY), expected)


@pytest.mark.parametrize("variance", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_variance_must_be_positive(variance: float) -> None:
    with pytest.raises(ValueError, match="noise variance is"):
        gaussian(variance)


@pytest.mark.parametrize("likelihood", [bernoulli, gaussian()])
def test_two_outputs_for_one_target_are_refused(likelihood: object) -> None:
    with pytest.raises(ValueError, match=r"outputs have shape \(8, 2\) and targets \(8,\)"):
        likelihood(torch.zeros(8, 2), BINARY)  # type: ignore[operator]


def test_several_numbers_of_one_example_count_together() -> None:
    outputs, targets = OUTPUTS.reshape(4, 2), BINARY.reshape(4, 2)
    torch.testing.assert_close(gaussian(2.0)(outputs, targets), -Normal(outputs, 2**0.5).log_prob(targets).sum(1))
    torch.testing.assert_close(bernoulli(outputs, targets), -Bernoulli(logits=outputs).log_prob(targets).sum(1))
    torch.testing.assert_close(bernoulli(OUTPUTS, BINARY[:, None]), bernoulli(OUTPUTS, BINARY))


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(1, 8), torch.zeros(8)),
        (torch.zeros(2, 4), torch.zeros(8)),
        (torch.zeros(1, 1), torch.tensor(1.0)),
        (torch.zeros(8), torch.zeros(8, dtype=torch.complex64)),
    ],
)
@pytest.mark.parametrize("likelihood", [bernoulli, gaussian()])
def test_nothing_is_broadcast(likelihood: Likelihood, outputs: Tensor, targets: Tensor) -> None:
    with pytest.raises(ValueError, match="give as many real numbers for each example"):
        likelihood(outputs, targets)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8, torch.int64])
def test_class_labels_of_any_integer_type(dtype: torch.dtype) -> None:
    logits = torch.arange(6.0).reshape(2, 3).requires_grad_()
    torch.testing.assert_close(
        categorical(logits, torch.tensor([2, 0], dtype=dtype)), categorical(logits, torch.tensor([2, 0]))
    )


@pytest.mark.parametrize(
    ("outputs", "labels", "error", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), TypeError, "class labels are torch.float32; give integers"),
        (torch.zeros(2, 3), torch.eye(3)[:2], TypeError, r"one-hot rows, argmax\(1\)"),
        (torch.zeros(2, 3), torch.tensor([True, False]), TypeError, "class labels are torch.bool"),
        (torch.zeros(2, 3), torch.tensor([[0], [1]]), ValueError, r"class labels \(2, 1\)"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), ValueError, "class labels must be 0 to 2"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), ValueError, "class labels must be 0 to 2"),
        (torch.zeros(2, 3), torch.tensor([0, -100]), ValueError, "class labels must be 0 to 2"),
        (torch.zeros(2, 1), torch.tensor([0, 0]), ValueError, "two classes or more"),
    ],
)
def test_what_is_no_class_label_is_refused(
    outputs: Tensor, labels: Tensor, error: type[Exception], message: str
) -> None:
    """The last but one is the label that torch ignores by default: such an example would cost nothing."""
    with pytest.raises(error, match=message):
        categorical(outputs, labels)


@pytest.mark.parametrize(
    ("likelihood", "targets", "message"),
    [
        (bernoulli, torch.tensor([0.0, 1.0, 2.0]), "target of example 2 is 2.0; it must be 0 or 1"),
        (bernoulli, torch.tensor([0.5, 1.0]), "target of example 0 is 0.5; it must be 0 or 1"),
        (gaussian(), torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]), r"target of example 1 is \[nan, 0.0\]"),
    ],
)
def test_impossible_targets_are_named(likelihood: Likelihood, targets: Tensor, message: str) -> None:
    check_targets(likelihood, targets.clamp(0, 1).nan_to_num().round())
    with pytest.raises(ValueError, match=message):
        check_targets(likelihood, targets)
