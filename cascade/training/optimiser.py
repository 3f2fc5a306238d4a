"""Optimisers of a stage, and clipping of its gradients."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from cascade.errors import ContractError
from cascade.networks.transformer import TransformerBlock
from cascade.stage import Stage
from cascade.training.settings import TrainingSettings
from cascade.training.sharding import full


def make_optimisers(stage: Stage, settings: TrainingSettings) -> list[Optimizer]:
    """AdamW for all parameters, or Muon for the blocks' matrices and AdamW for the rest.

    Raises:
        ContractError: if Muon is asked for and the network has no blocks of matrices.
    """
    matrices = muon_parameters(stage) if settings.optimiser == "muon" else []
    if settings.optimiser == "muon" and not matrices:
        raise ContractError("optimiser muon needs network.kind transformer; use adamw for a unet.")
    chosen = {id(parameter) for parameter in matrices}
    rest = [p for p in stage.parameters() if id(p) not in chosen]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in rest)
    optimisers: list[Optimizer] = [
        AdamW(
            rest,
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=fused,
        )
    ]
    if matrices:
        optimisers.append(
            Muon(matrices, lr=settings.muon_learning_rate, weight_decay=settings.weight_decay)
        )
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["full_lr"] = group["lr"]
    return optimisers


def muon_parameters(stage: Stage) -> list[nn.Parameter]:
    """The weight matrices of a transformer's blocks."""
    blocks = (m for m in stage.network.backbone.modules() if isinstance(m, TransformerBlock))
    return [p for block in blocks for p in block.parameters() if p.ndim == 2]


def clip_gradients(parameters: list[nn.Parameter], largest_norm: float) -> float:
    """Scale gradients down to a norm, and return the norm before; of sharded ones, that of all."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, largest_norm)
    return float(full(norm))
