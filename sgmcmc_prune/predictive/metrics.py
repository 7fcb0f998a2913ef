"""How good predicted probabilities are: accuracy, NLL, Brier score, calibration error, and AUROC for detection.

Probabilities are `(n, classes)`, labels `(n,)`; everything is computed in float64, whatever comes in.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

#: How far a row of probabilities may sum from one: rows rounded to half precision pass, logits do not.
_ROW_SUM_TOLERANCE = 1e-2
#: Scores of any likelihood that are the root of a mean over examples, and those that are a share of examples.
ROOTS, SHARES = ("rmse",), ("accuracy", "coverage")


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Fraction of examples whose most probable class is the true one (the first of several equally probable).

    Parameters
    ----------
    probabilities : Tensor, shape (n, classes)
        Predicted class probabilities.
    labels : Tensor of integers, shape (n,)
        True classes.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    TypeError
        Labels or probabilities of the wrong dtype.
    ValueError
        Shapes that do not match, rows that are not distributions, labels outside the classes.
    """
    return float(_right(*_checked(probabilities, labels)).mean())


def negative_log_likelihood(probabilities: Tensor, labels: Tensor) -> float:
    r"""Mean negative log-probability of the true class, :math:`-\frac1n \sum_i \log p_i(y_i)`.

    A probability of zero is raised to the smallest normal float64 (2.2e-308), so that one impossible example costs
    708 nats and not infinity.

    Parameters
    ----------
    probabilities : Tensor, shape (n, classes)
        Predicted class probabilities.
    labels : Tensor of integers, shape (n,)
        True classes.

    Returns
    -------
    float
        In nats per example.

    Raises
    ------
    TypeError, ValueError
        As `accuracy`.
    """
    return float(_surprise(*_checked(probabilities, labels)).mean())


def brier(probabilities: Tensor, labels: Tensor) -> float:
    r"""Brier score, :math:`\frac1n \sum_i \sum_k (p_{ik} - [y_i = k])^2`: summed over classes, so between 0 and 2.

    Parameters
    ----------
    probabilities : Tensor, shape (n, classes)
        Predicted class probabilities.
    labels : Tensor of integers, shape (n,)
        True classes.

    Returns
    -------
    float
        Mean over examples.

    Raises
    ------
    TypeError, ValueError
        As `accuracy`.

    References
    ----------
    Brier (1950), Verification of forecasts expressed in terms of probability, Monthly Weather Review 78.
    """
    return float(_squared_error(*_checked(probabilities, labels)).mean())


def each(probabilities: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What every example adds to the metrics that are means: `accuracy`, `nll` and `brier`.

    Parameters
    ----------
    probabilities : Tensor, shape (n, classes)
        Predicted class probabilities.
    labels : Tensor of integers, shape (n,)
        True classes.

    Returns
    -------
    dict of str to Tensor of float64, shape (n,)

    Raises
    ------
    TypeError, ValueError
        As `accuracy`.
    """
    p, y = _checked(probabilities, labels)
    return {"accuracy": _right(p, y), "nll": _surprise(p, y), "brier": _squared_error(p, y)}


def _right(p: Tensor, y: Tensor) -> Tensor:
    return (p.argmax(1) == y).double()


def _surprise(p: Tensor, y: Tensor) -> Tensor:
    return -p.gather(1, y[:, None]).squeeze(1).clamp_min(torch.finfo(torch.float64).tiny).log()


def _squared_error(p: Tensor, y: Tensor) -> Tensor:
    return (p - torch.nn.functional.one_hot(y, p.shape[1])).square().sum(1)


@dataclass(frozen=True)
class Reliability:
    """One reliability diagram: mean confidence, accuracy and number of examples per bin, each of shape (bins,).

    An empty bin has count 0 and NaN for the other two.
    """

    confidence: Tensor
    accuracy: Tensor
    count: Tensor


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15, binning: str = "width") -> Reliability:
    """Group examples by confidence (their largest probability) and compare confidence with accuracy.

    Bins are closed on the right. With "mass" their edges are quantiles of the confidences: equal confidences share a
    bin, so that the result does not depend on the order of the examples (and bins may be empty when many tie).

    Parameters
    ----------
    probabilities : Tensor, shape (n, classes)
        Predicted class probabilities.
    labels : Tensor of integers, shape (n,)
        True classes.
    bins : int
        Number of bins.
    binning : {"width", "mass"}
        Bins of equal width on [0, 1], or of equal numbers of examples.

    Returns
    -------
    Reliability
        float64 confidence and accuracy, integer count.

    Raises
    ------
    TypeError, ValueError
        As `accuracy`; also fewer than one bin, or an unknown binning.
    """
    p, y = _checked(probabilities, labels)
    confidence, predicted = p.max(1)
    index = torch.bucketize(confidence, _inner_edges(confidence, bins, binning))
    count = torch.bincount(index, minlength=bins)

    def bin_mean(values: Tensor) -> Tensor:
        return torch.bincount(index, weights=values, minlength=bins) / count

    return Reliability(bin_mean(confidence), bin_mean((predicted == y).double()), count)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15, binning: str = "width") -> float:
    r"""Mean gap between confidence and accuracy, :math:`\sum_b \frac{n_b}{n} |\mathrm{acc}_b - \mathrm{conf}_b|`.

    Finite data give a perfectly calibrated predictor a positive value: up to sqrt(bins / 4n) on average.

    Parameters
    ----------
    probabilities : Tensor, shape (n, classes)
        Predicted class probabilities.
    labels : Tensor of integers, shape (n,)
        True classes.
    bins : int
        Number of bins.
    binning : {"width", "mass"}
        As in `reliability`.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        As `reliability`.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks, ICML.
    """
    diagram = reliability(probabilities, labels, bins, binning)
    gap = (diagram.accuracy - diagram.confidence).abs().nan_to_num(nan=0.0)
    return float((diagram.count * gap).sum() / diagram.count.sum())


def auroc(in_scores: Tensor, out_scores: Tensor) -> float:
    r"""Probability that an out-of-distribution score exceeds an in-distribution one, a tie counting one half.

    :math:`P(s_\mathrm{out} > s_\mathrm{in}) + \tfrac12 P(s_\mathrm{out} = s_\mathrm{in})`, the area under the ROC
    curve and the Mann-Whitney statistic divided by the number of pairs. A score is larger the more foreign the example
    looks: predictive entropy, mutual information, or minus the confidence.

    Parameters
    ----------
    in_scores : Tensor, shape (n,)
        Scores of in-distribution examples.
    out_scores : Tensor, shape (m,)
        Scores of out-of-distribution examples.

    Returns
    -------
    float
        1 when every foreign example scores above every familiar one, one half when scores tell nothing.

    Raises
    ------
    ValueError
        Scores that are empty, not one-dimensional, or NaN.

    References
    ----------
    Hanley and McNeil (1982), The meaning and use of the area under a ROC curve, Radiology 143.
    """
    for name, scores in (("in_scores", in_scores), ("out_scores", out_scores)):
        if not isinstance(scores, Tensor):
            raise TypeError(f"{name} is of type {type(scores).__name__}; give a tensor: torch.as_tensor({name})")
        if scores.ndim != 1 or len(scores) == 0 or bool(scores.isnan().any()):
            raise ValueError(f"{name} must be a non-empty vector without NaN, not of shape {tuple(scores.shape)}")
    familiar = in_scores.double().sort().values
    foreign = out_scores.double().to(familiar.device)
    below = torch.searchsorted(familiar, foreign)
    not_above = torch.searchsorted(familiar, foreign, right=True)
    return float((below + not_above).double().mean() / (2 * len(familiar)))


def summarise(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Give the four metrics that every table reports: `accuracy`, `nll`, `brier` and `ece` (15 bins of equal width).

    Parameters
    ----------
    probabilities : Tensor, shape (n, classes)
        Predicted class probabilities.
    labels : Tensor of integers, shape (n,)
        True classes.

    Returns
    -------
    dict of str to float
        Ready for JSON.

    Raises
    ------
    TypeError, ValueError
        As `accuracy`.
    """
    return {
        "accuracy": accuracy(probabilities, labels),
        "nll": negative_log_likelihood(probabilities, labels),
        "brier": brier(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
    }


def _inner_edges(confidence: Tensor, bins: int, binning: str) -> Tensor:
    """Give the `bins - 1` edges between bins, in increasing order."""
    if not isinstance(bins, int) or bins < 1:
        raise ValueError(f"bins is {bins}; use one or more")
    inner = torch.arange(1, bins, device=confidence.device)
    if binning == "width":
        return inner.double() / bins
    if binning == "mass":
        last_rank = (inner * len(confidence) - 1) // bins  # of each bin, from zero: ceil(b * n / bins) - 1
        return confidence.sort().values[last_rank]
    raise ValueError(f"binning is {binning!r}; choose 'width' or 'mass'")


def _checked(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Refuse what is not a set of distributions with labels; give float64 probabilities and int64 labels."""
    _check_types_and_shapes(probabilities, labels)
    p, y = probabilities.detach().double(), labels.long().to(probabilities.device)
    # Written so that a NaN fails the comparison.
    bad = ~(((p.sum(1) - 1).abs() <= _ROW_SUM_TOLERANCE) & (p >= 0).all(1))
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"row {row} of the probabilities sums to {float(p[row].sum()):g}, its smallest is {float(p[row].min()):g}; "
            "each row must be non-negative and sum to 1; apply softmax to logits first"
        )
    if int(y.min()) < 0 or int(y.max()) >= p.shape[1]:
        raise ValueError(
            f"labels run from {int(y.min())} to {int(y.max())}; {p.shape[1]} classes need 0..{p.shape[1] - 1}"
        )
    return p, y


def _check_types_and_shapes(probabilities: Tensor, labels: Tensor) -> None:
    """Raise on a wrong type or dtype or on shapes other than (n, classes) and (n,)."""
    for name, value in {"probabilities": probabilities, "labels": labels}.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} are of type {type(value).__name__}; give a tensor: torch.as_tensor({name})")
    if not probabilities.dtype.is_floating_point:
        raise TypeError(f"probabilities must be floating point, not {probabilities.dtype}")
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, not {labels.dtype}")
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or probabilities.numel() == 0:
        shapes = f"{tuple(probabilities.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"probabilities and labels must have shapes (n, classes) and (n,) with n > 0, not {shapes}")
