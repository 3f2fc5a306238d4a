"""The optimisers of a stage, and gradient clipping."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from cascade.stage import Stage
from cascade.training.muon import Muon
from cascade.training.settings import TrainingSettings
from cascade.training.sharding import BLOCKS, full


def make_optimisers(
    stage: Stage, settings: TrainingSettings, learned: nn.Module | None = None
) -> list[Optimizer]:
    """AdamW for all parameters, or Muon for the weights of the blocks and AdamW for the rest.

    Every parameter group holds its full learning rate as `full_lr`.

    Args:
        stage: the stage in training.
        settings: settings of the run.
        learned: what the objective trains besides the stage; it gets an AdamW of its own, with the
            same settings.
    """
    weights = muon_parameters(stage) if settings.optimiser == "muon" else []
    muon_ids = {id(parameter) for parameter in weights}
    rest = [p for p in stage.parameters() if p.requires_grad and id(p) not in muon_ids]
    optimisers: list[Optimizer] = [_adamw(rest, settings)]
    if weights:
        optimisers.append(
            Muon(weights, lr=settings.muon_learning_rate, weight_decay=settings.weight_decay)
        )
    if learned is not None:
        optimisers.append(_adamw(list(learned.parameters()), settings))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["full_lr"] = group["lr"]
    return optimisers


def _adamw(parameters: list[nn.Parameter], settings: TrainingSettings) -> AdamW:
    return AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=all(parameter.device.type in ("cpu", "cuda") for parameter in parameters),
    )


def muon_parameters(stage: Stage) -> list[nn.Parameter]:
    """The matrices and convolutions of a network's blocks, without its first and last layers."""
    blocks = (m for m in stage.trunk.modules() if isinstance(m, BLOCKS))
    weights = {id(p): p for block in blocks for p in block.parameters() if p.ndim > 1}
    return [each for each in weights.values() if each.requires_grad]


def clip_gradients(parameters: list[nn.Parameter], largest_norm: float) -> float:
    """Scale gradients down to a largest norm.

    Args:
        parameters: parameters with gradients, sharded or not; changed in place.
        largest_norm: largest norm of all gradients together, above 0.

    Returns:
        The norm before clipping, over all processes.
    """
    norm = torch.nn.utils.clip_grad_norm_(parameters, largest_norm)
    return float(full(norm))
