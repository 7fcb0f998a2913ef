"""Effective sample size and R-hat, as ArviZ defines them, of every parameter at once.

Blocks have the layout (parameters, chains, draws); every chain is split into halves, so that a drift within a chain
counts as a difference between chains.

References
----------
Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021), Rank-normalization, folding, and localization: an improved R-hat
for assessing convergence of MCMC, Bayesian Analysis 16.
Geyer (1992), Practical Markov chain Monte Carlo, Statistical Science 7 (initial monotone sequence).
Margossian et al. (2024), Nested R-hat: assessing the convergence of Markov chain Monte Carlo when running many short
chains, Bayesian Analysis.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from sgmcmc_prune.diagnostics.streams import MEMORY, StreamedDraws, by_block

#: With fewer, a chain cannot be split into halves that have a variance.
MIN_DRAWS = 4
#: With fewer, half a chain is too short for Geyer's sequence: ESS is then S log10 S, whatever the draws.
MIN_DRAWS_ESS = 10
#: The tail is beyond these quantiles, as in Vehtari et al. (ArviZ's default is the ends of its credible interval).
TAILS = (0.05, 0.95)


def ess(draws: Tensor | StreamedDraws, method: str = "bulk", memory: int = MEMORY, progress: bool = False) -> Tensor:
    r"""Effective sample size :math:`C n / \hat\tau` with :math:`\hat\tau = -1 + 2 \sum_t \hat\rho_t`.

    The autocorrelations :math:`\hat\rho_t` combine all chains; their sum ends where Geyer's initial positive sequence
    does, and is made monotone.

    Parameters
    ----------
    draws : Tensor, shape (chains, draws, *shape), or StreamedDraws
    method : {"bulk", "tail", "mean"}
        Of rank-normalised draws; the smaller of the 5 % and 95 % quantiles' indicators; of the draws as they are.
    memory : int
        Bytes of working memory.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Tensor, shape `shape`, float64
        In draws. NaN with fewer than four draws or where a draw is not finite. As in ArviZ, where nothing moves, the
        number of draws S; and at most S log10 S, which with fewer than ten draws a chain is all it says.

    Raises
    ------
    ValueError
        An unknown method, draws of the wrong shape, or two chains that are one.
    """
    return by_block(draws, _checked(_choose(method, _ESS), min_chains=1), memory, progress)


def rhat(draws: Tensor | StreamedDraws, method: str = "rank", memory: int = MEMORY, progress: bool = False) -> Tensor:
    r"""Potential scale reduction :math:`\hat R = \sqrt{(B / W + n - 1) / n}` of split chains.

    Parameters
    ----------
    draws : Tensor, shape (chains, draws, *shape), or StreamedDraws
    method : {"rank", "z_scale", "folded", "split"}
        "z_scale" rank-normalises the draws and sees a difference in location; "folded" rank-normalises their distance
        from the median and sees a difference in scale; "rank" is the larger of the two; "split" takes draws as they
        are.
    memory : int
        Bytes of working memory.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Tensor, shape `shape`, float64
        NaN with one chain, with fewer than four draws, where a draw is not finite, and where nothing moves.

    Raises
    ------
    ValueError
        An unknown method, draws of the wrong shape, or two chains that are one.
    """
    return by_block(draws, _checked(_choose(method, _RHAT), min_chains=2), memory, progress)


def nested_rhat(
    draws: Tensor | StreamedDraws, superchains: Sequence[int], memory: int = MEMORY, progress: bool = False
) -> Tensor:
    r"""Rank-normalised nested R-hat, :math:`\sqrt{1 + B / W}` between and within superchains.

    A superchain is a set of chains with one start. B is the variance of superchains' means; W adds the variance of the
    chains' means within a superchain to that within chains, so that many short chains can be judged.

    Parameters
    ----------
    draws : Tensor, shape (chains, draws, *shape), or StreamedDraws
    superchains : sequence of int
        The superchain of every chain; all have the same number of chains, and there are at least two.
    memory : int
        Bytes of working memory.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Tensor, shape `shape`, float64
        NaN as for `rhat`.

    Raises
    ------
    ValueError
        Superchains that do not fit the chains.
    """
    if len(superchains) != draws.shape[0]:
        raise ValueError(f"superchains name {len(superchains)} chains; the draws have {draws.shape[0]}")
    members = [[c for c, s in enumerate(superchains) if s == label] for label in sorted(set(superchains))]
    if len(members) < 2 or len({len(chains) for chains in members}) > 1:
        raise ValueError(f"superchains are {list(superchains)}; give at least two, each with the same number of chains")
    index = torch.tensor(members)
    halves = torch.cat([index, index + len(superchains)], dim=1)
    return by_block(draws, _checked(lambda x: _rank(x, lambda z: _nested(z, halves)), 2), memory, progress)


def mcse_mean(draws: Tensor | StreamedDraws, memory: int = MEMORY, progress: bool = False) -> Tensor:
    r"""Monte-Carlo standard error of the mean, :math:`\mathrm{sd} / \sqrt{\mathrm{ESS}}` (ESS of method "mean").

    Parameters
    ----------
    draws : Tensor, shape (chains, draws, *shape), or StreamedDraws
    memory : int
        Bytes of working memory.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Tensor, shape `shape`, float64
        In units of the draws; NaN as for `ess`.
    """

    def error(x: Tensor) -> Tensor:
        return x.double().flatten(1).std(dim=1) / _ess_mean(x).sqrt()

    return by_block(draws, _checked(error, min_chains=1), memory, progress)


def _choose(method: str, methods: Mapping[str, Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
    if method not in methods:
        raise ValueError(f"method is {method!r}; choose one of {', '.join(methods)}")
    return methods[method]


def _checked(function: Callable[[Tensor], Tensor], min_chains: int) -> Callable[[Tensor], Tensor]:
    """NaN where a statistic is not defined."""

    def checked(x: Tensor) -> Tensor:
        if pairs := coinciding(x):
            first, second = pairs[0]
            raise ValueError(
                f"chains {first} and {second} have the same draws: they are one chain, counted twice; give each chain "
                "a seed or chain number of its own"
            )
        if x.shape[1] < min_chains or x.shape[2] < MIN_DRAWS:
            return x.new_full((len(x),), math.nan, dtype=torch.float64)
        finite = x.isfinite().flatten(1).all(1)
        return torch.where(finite, function(x.where(finite[:, None, None], 0.0)), math.nan)

    return checked


def coinciding(x: Tensor) -> list[tuple[int, int]]:
    """Pairs of chains whose draws are equal, all of them, though they move.

    Whole numbers (counts, indicators) may be equal by chance, and are not looked at.

    Parameters
    ----------
    x : Tensor, shape (parameters, chains, draws)
    """
    if x.shape[2] < 2 or not x.dtype.is_floating_point:
        return []
    moves = [bool((c != c[:, :1]).any()) and bool((c != c.round()).any()) for c in x.unbind(1)]
    pairs = itertools.combinations(range(x.shape[1]), 2)
    return [(a, b) for a, b in pairs if moves[a] and moves[b] and torch.equal(x[:, a], x[:, b])]


def _split(x: Tensor) -> Tensor:
    """First halves of all chains, then second halves; the draw in the middle of an odd number is left out."""
    half = x.shape[-1] // 2
    return torch.cat([x[..., :half], x[..., -half:]], dim=1)


def _normal_scores(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Replace draws by :math:`\Phi^{-1}((r - 3/8) / (S + 1/4))`, r the (average) rank among all S; and the median."""
    flat = x.flatten(1)
    size = flat.shape[1]
    order = _order(flat)
    values = flat.gather(1, order)
    # A score for every rank and for the ranks in between, which ties take.
    ranks = 1 + torch.arange(2 * size - 1, dtype=torch.float64, device=x.device) / 2
    table = torch.special.ndtri((ranks - 3 / 8) / (size + 1 / 4))
    scores = table[::2].repeat(len(flat), 1)
    same = values[:, 1:] == values[:, :-1]
    tied = same.any(1)
    if tied.any():
        first, last = _runs(same[tied])
        scores[tied] = table[first + last]
    median = values[:, (size - 1) // 2].double().lerp(values[:, size // 2].double(), 0.5)
    return torch.empty_like(scores).scatter_(1, order, scores).view(x.shape), median


def _order(x: Tensor) -> Tensor:
    """Places of rising values along each row; NumPy sorts four times as fast as torch on a CPU."""
    if x.device.type != "cpu" or x.dtype == torch.bfloat16:
        return x.argsort(dim=1)
    return torch.from_numpy(x.numpy().argsort(axis=1))


def _runs(same: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last place of each value's run of equal ones; `same` as the one before, (rows, S - 1)."""
    place, edge = torch.arange(same.shape[1] + 1, device=same.device), same.new_ones(len(same), 1)
    first = place.where(torch.cat([edge, ~same], 1), 0).cummax(1).values
    last = place.where(torch.cat([~same, edge], 1), same.shape[1]).flip(1).cummin(1).values.flip(1)
    return first, last


def _rank(x: Tensor, statistic: Callable[[Tensor], Tensor]) -> Tensor:
    """The larger of a statistic of the normal scores and of the folded ones."""
    halves = _split(x)
    scores, median = _normal_scores(halves)
    return torch.fmax(statistic(scores), statistic(_folded(halves, median)))


def _folded(x: Tensor, median: Tensor) -> Tensor:
    """Normal scores of the distance from the median."""
    return _normal_scores((x.double() - median[:, None, None]).abs())[0]


def _rhat(z: Tensor) -> Tensor:
    """R-hat of chains as they are, from B = n Var(means) and W = mean(variances)."""
    n = z.shape[2]
    between, within = n * z.mean(2).var(1), z.var(2).mean(1)
    ratio = ((between / within + n - 1) / n).sqrt()
    return torch.where(_moves(z), ratio, math.nan)


def _nested(z: Tensor, members: Tensor) -> Tensor:
    """Nested R-hat of chains as they are; `members` (superchains, chains) indexes them."""
    means = z.mean(2)[:, members]
    variances = z.var(2)[:, members]
    within = (variances.mean(2) + means.var(2)).mean(1)
    return torch.where(_moves(z), (1 + means.mean(2).var(1) / within).sqrt(), math.nan)


def _moves(z: Tensor) -> Tensor:
    flat = z.flatten(1)
    return flat.amax(1) - flat.amin(1) >= 1e-15


def _effective(z: Tensor) -> Tensor:
    """Effective sample size of chains as they are."""
    chains, n = z.shape[1:]
    covariance = _autocovariance(z)
    variance = covariance[:, :1] + (z.mean(2).var(1, keepdim=True) if chains > 1 else 0.0)
    rho = 1 - (covariance[:, :1] * n / (n - 1) - covariance) / variance
    rho[:, 0] = 1
    tau = _integrated_time(rho).clamp(min=1 / math.log10(chains * n))
    return torch.where(_moves(z), chains * n / tau, float(chains * n))


def _autocovariance(z: Tensor) -> Tensor:
    """Autocovariance at every lag, averaged over chains (before going back from frequencies, to save a half)."""
    n = z.shape[2]
    spectrum = torch.fft.rfft(z - z.mean(2, keepdim=True), n=2 * n)
    power = (spectrum.real.square() + spectrum.imag.square()).mean(1)
    return torch.fft.irfft(power, n=2 * n)[:, :n] / n


def _integrated_time(rho: Tensor) -> Tensor:
    r"""Sum autocorrelations :math:`\hat\tau = -1 + 2 \sum_{k<K} P_k + \hat\rho_{2K}`, in pairs.

    :math:`P_k = \hat\rho_{2k} + \hat\rho_{2k+1}` is positive and falls with k in a reversible chain: K is the first
    pair that is not positive, and each pair is cut to the smallest before it.
    """
    n = rho.shape[1]
    count = max(0, (n - 3) // 2) + 1  # the pairs that leave two lags beyond
    even = rho[:, : 2 * count : 2]
    pairs = even + rho[:, 1 : 2 * count : 2]
    going = (pairs > 0).long()
    going[:, -1] = 0
    going = going.cumprod(1)
    last = going.sum(1, keepdim=True)
    total = (pairs.cummin(1).values * going).sum(1)
    even, pair = even.gather(1, last)[:, 0], pairs.gather(1, last)[:, 0]
    return -1 + 2 * total + torch.where((even > 0) | (pair >= 0), even, 0.0)


def _ess_bulk(x: Tensor) -> Tensor:
    return _effective(_normal_scores(_split(x))[0])


def _ess_mean(x: Tensor) -> Tensor:
    return _effective(_split(x).double())


def _ess_tail(x: Tensor) -> Tensor:
    values = x.flatten(1).sort(dim=1).values.double()
    sizes = []
    for probability in TAILS:
        position = (values.shape[1] - 1) * probability
        low, high = values[:, math.floor(position)], values[:, math.ceil(position)]
        quantile = low.lerp(high, position - math.floor(position))
        sizes.append(_effective(_split((x <= quantile[:, None, None]).double())))
    return torch.minimum(*sizes)


_ESS = {"bulk": _ess_bulk, "tail": _ess_tail, "mean": _ess_mean}
_RHAT = {
    "rank": lambda x: _rank(x, _rhat),
    "z_scale": lambda x: _rhat(_normal_scores(_split(x))[0]),
    "folded": lambda x: _rhat(_folded(_split(x), _normal_scores(_split(x))[1])),
    "split": lambda x: _rhat(_split(x).double()),
}
