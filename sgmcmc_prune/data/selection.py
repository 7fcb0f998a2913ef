"""Small simulated designs: a sigmoid teacher, a function of five features, and waves, a set for a first regression.

    teacher:   y = 10 s(3 x0 + 5 x1 + 1) - 8 s(-5 x0 + 3 x1 - 1) + eps  ,   x ~ U[-1, 1]^2,  s the logistic function
    features:  y = 7 x1 / (1 + x0^2) + 5 sin(x2 x3) + 2 x4 + eps,             x ~ N(0, I_p)

The teacher has two hidden nodes; its noise has 5 % of the signal's standard deviation. The second design has five
relevant features of p and unit noise; x2 and x3 act through their product alone.

References
----------
Jantre, Bhattacharya, Maiti (Neural Networks 2023) and Liang, Li, Zhou (JASA 2018) use designs of this kind; the
teacher's weights are ours.
"""

import torch
from torch import Tensor

from sgmcmc_prune.data.seeding import seeded_generator

#: Noise of the teacher relative to the signal's standard deviation.
TEACHER_NOISE = 0.05
#: Relevant features of `features`.
SUPPORT = (0, 1, 2, 3, 4)

Part = tuple[Tensor, Tensor]

_TEACHER_WEIGHT = torch.tensor([[3.0, 5.0], [-5.0, 3.0]])
_TEACHER_BIAS = torch.tensor([1.0, -1.0])
_TEACHER_OUTPUT = torch.tensor([10.0, -8.0])


def teacher(num_data: int, seed: int, split: str = "train") -> tuple[Tensor, Tensor, float]:
    """Draw examples from the 2-2-1 sigmoid teacher.

    Parameters
    ----------
    num_data : int
        n.
    seed : int
    split : str
        Splits of one seed are independent.

    Returns
    -------
    inputs : Tensor, shape (n, 2)
    targets : Tensor, shape (n,)
        Divided, noise included, by the noise-free signal's standard deviation.
    noise : float
        Standard deviation of the noise.

    Raises
    ------
    ValueError
        If `num_data` is under 2.
    """
    if num_data < 2:
        raise ValueError(f"num_data is {num_data}; the teacher needs at least 2 examples")
    inputs = 2 * torch.rand(num_data, 2, generator=seeded_generator(f"teacher-{split}-inputs", seed)) - 1
    # One long sample scales all splits alike.
    reference = 2 * torch.rand(100_000, 2, generator=seeded_generator("teacher-scale")) - 1
    scale = _teacher_signal(reference).std()
    noise = torch.randn(num_data, generator=seeded_generator(f"teacher-{split}-noise", seed))
    return inputs, _teacher_signal(inputs) / scale + TEACHER_NOISE * noise, TEACHER_NOISE


def features(num_data: int, num_features: int, seed: int, split: str = "train") -> tuple[Tensor, Tensor]:
    """Draw examples of the five-feature design.

    Parameters
    ----------
    num_data, num_features : int
        n >= 1 and p >= 5.
    seed : int
    split : str
        Splits of one seed are independent.

    Returns
    -------
    inputs : Tensor, shape (n, p)
    targets : Tensor, shape (n,)

    Raises
    ------
    ValueError
        If n or p is too small.
    """
    if num_data < 1 or num_features < len(SUPPORT):
        raise ValueError(f"num_data is {num_data} and num_features {num_features}; give at least 1 and {len(SUPPORT)}")
    x = torch.randn(num_data, num_features, generator=seeded_generator(f"features-{split}-inputs", seed))
    noise = torch.randn(num_data, generator=seeded_generator(f"features-{split}-noise", seed))
    return x, 7 * x[:, 1] / (1 + x[:, 0].square()) + 5 * (x[:, 2] * x[:, 3]).sin() + 2 * x[:, 4] + noise


def waves(num_data: int = 300, num_features: int = 4, seed: int = 0) -> tuple[Part, Part]:
    """A small regression set, sin(3 x0 / 2) + x1 / 2 and noise of half the signal's deviation; other inputs are idle.

    Parameters
    ----------
    num_data : int
        Of the training set, and of the test set.
    num_features : int
        At least 2.
    seed : int

    Returns
    -------
    train, test : pair of Tensor
        Inputs N(0, I), shape (n, p), and targets (n,), standardised by the training set.

    Raises
    ------
    ValueError
        If there are fewer than two examples or features.
    """
    if num_data < 2 or num_features < 2:
        raise ValueError(f"num_data is {num_data} and num_features {num_features}; give at least 2 of each")
    generator = seeded_generator("waves", seed)
    x = torch.randn(2 * num_data, num_features, generator=generator)
    signal = (1.5 * x[:, 0]).sin() + x[:, 1] / 2
    y = signal + signal[:num_data].std() / 2 * torch.randn(2 * num_data, generator=generator)
    y = (y - y[:num_data].mean()) / y[:num_data].std()
    return (x[:num_data], y[:num_data]), (x[num_data:], y[num_data:])


def _teacher_signal(x: Tensor) -> Tensor:
    return (x @ _TEACHER_WEIGHT.T + _TEACHER_BIAS).sigmoid() @ _TEACHER_OUTPUT
