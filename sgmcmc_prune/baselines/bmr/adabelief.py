"""AdaBelief: Adam with the squared *deviation* of the gradient from its mean in the denominator."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class AdaBelief(Optimizer):
    r"""AdaBelief with the constants of its common JAX form.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
              s \leftarrow \beta_2 s + (1 - \beta_2) (g - m^-)^2 + \epsilon, \qquad
              w \leftarrow w - l \, \frac{m / (1 - \beta_1^t)}{\sqrt{s / (1 - \beta_2^t)} + \epsilon}.

    with :math:`m^-` the mean before this gradient, which is what the authors' optimiser measures the deviation from;
    from the new mean it is :math:`\beta_1` times as large, and the step 1 / :math:`\beta_1` times as long.

    But for :math:`\epsilon` the step does not depend on the scale of the loss: a sum over the data and a mean train
    alike.

    Parameters
    ----------
    params : iterable of Tensor
    lr : float
        l > 0.
    betas : tuple of float
    eps : float

    References
    ----------
    Zhuang et al.: AdaBelief optimizer: adapting stepsizes by the belief in observed gradients (NeurIPS 2020).
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-16) -> None:
        if not lr > 0:
            raise ValueError(f"lr is {lr}; it must be > 0")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient; a closure is not taken."""
        if closure is not None:
            raise TypeError("AdaBelief takes no closure; call backward() before step()")
        for group in self.param_groups:
            (beta1, beta2), eps = group["betas"], group["eps"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
                state["step"] += 1
                mean, square, t = state["mean"], state["square"], state["step"]
                deviation = p.grad - mean
                mean.lerp_(p.grad, 1 - beta1)
                square.mul_(beta2).addcmul_(deviation, deviation, value=1 - beta2).add_(eps)
                denominator = square.div(1 - beta2**t).sqrt_().add_(eps)
                p.addcdiv_(mean, denominator, value=-group["lr"] / (1 - beta1**t))
