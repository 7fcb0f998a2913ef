"""How dense each layer stays at a target sparsity. Global pruning needs no allocation: it is one threshold over all."""

from collections.abc import Mapping
from math import prod


def uniform(shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Give every layer the same density, 1 - sparsity.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shape of each prunable parameter.
    sparsity : float
        Fraction of all these weights to mask, in [0, 1).

    Returns
    -------
    dict of str to float
        Density (fraction kept) of each layer, in (0, 1].

    Raises
    ------
    ValueError
        If `sparsity` is outside [0, 1).
    """
    check_sparsity(sparsity)
    return dict.fromkeys(shapes, 1 - sparsity)


def erdos_renyi_kernel(shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    r"""Erdős-Rényi-kernel densities: small and thin layers stay denser.

    .. math:: d_l = \min\left(1, \varepsilon \frac{\sum_k n_{l,k}}{\prod_k n_{l,k}}\right), \qquad
              \sum_l d_l N_l = (1 - s) \sum_l N_l,

    with :math:`n_{l,k}` the dimensions of layer :math:`l` and :math:`N_l` its number of weights; the second equation
    fixes :math:`\varepsilon`.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shape of each prunable parameter.
    sparsity : float
        Fraction s of all these weights to mask, in [0, 1).

    Returns
    -------
    dict of str to float
        Density (fraction kept) of each layer, in (0, 1].

    Raises
    ------
    ValueError
        If `sparsity` is outside [0, 1).

    References
    ----------
    Evci, Gale, Menick, Castro and Elsen (2020), Rigging the lottery: making all tickets winners, section 3.
    """
    check_sparsity(sparsity)
    dense: set[str] = set()
    while True:
        # The layers not yet dense share what is left to keep, in proportion to the sum of their dimensions.
        sparse = [name for name in shapes if name not in dense]
        kept = (1 - sparsity) * sum(map(prod, shapes.values())) - sum(prod(shapes[name]) for name in dense)
        scale = kept / max(1, sum(sum(shapes[name]) for name in sparse))
        density = {name: scale * sum(shapes[name]) / prod(shapes[name]) for name in sparse}
        # Making a layer dense leaves more to the others, so a layer that exceeds 1 now would exceed it in the end too.
        exceeding = {name for name in sparse if density[name] > 1}
        if not exceeding:
            return {name: density.get(name, 1.0) for name in shapes}
        dense |= exceeding


def check_sparsity(sparsity: float) -> None:
    """Raise `ValueError` unless `sparsity` is in [0, 1)."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}; it is the fraction of weights to mask, in [0, 1)")
