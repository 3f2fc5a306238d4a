"""Muon, the optimiser of matrices (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

torch has a Muon, but it takes matrices alone, and it always computes in bfloat16. Processors that
have to emulate bfloat16 need more time for that than for the network itself.

Shapes: R rows (output channels), K columns (inputs of one output).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cascade.devices import has_fast_bf16

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, for the steepest slope at 0
ITERATIONS = 5
SMALLEST_NORM = 1e-7


@final
class Muon(Optimizer):
    """Move weights along their orthogonalised momentum, with decoupled weight decay.

    A convolution's weight (out, in, height, width) is treated as the matrix
    (out, in * height * width) that multiplies a flattened patch.

    Args:
        weights: tensors with at least two dimensions.
        lr: learning rate, for matrices with no more rows than columns; others get it times
            sqrt(R / K).
        weight_decay: share of a weight that it loses in a step with a learning rate of 1.
    """

    def __init__(
        self, weights: Sequence[nn.Parameter], *, lr: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move all weights that have gradients; there is no closure."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    update = orthogonalised(self._nesterov(weight).flatten(1))
                    rows, columns = update.shape
                    rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update.reshape(weight.shape), alpha=-rate)

    def _nesterov(self, weight: nn.Parameter) -> Tensor:
        """Update the momentum of a weight, and look ahead by one gradient; shaped as the weight."""
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight.grad)
        momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp(momentum, MOMENTUM)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Bring all singular values near 1, by the Newton-Schulz iteration.

    Args:
        matrix: (R, K) float32.

    Returns:
        (R, K) with the same singular vectors and singular values of 0.7 to 1.2, in bfloat16 where
        the hardware computes in it, else in float32.
    """
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    x = wide.to(torch.bfloat16 if has_fast_bf16(matrix.device) else torch.float32)
    x = x / x.norm().clamp(min=SMALLEST_NORM)  # no singular value above 1
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrix else x.T
