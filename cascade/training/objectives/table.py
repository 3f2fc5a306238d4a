"""The objectives by the name that a recipe gives."""

from __future__ import annotations

from cascade.errors import ContractError, nearest
from cascade.training.objectives.denoising import Denoising
from cascade.training.objectives.objective import Objective

OBJECTIVES: dict[str, type[Objective]] = {"denoising": Denoising}


def make_objective(name: str) -> Objective:
    """An objective by name.

    Raises:
        ContractError: for an unknown name; the message offers the nearest.
    """
    if name not in OBJECTIVES:
        raise ContractError(f"unknown objective {name!r}: {nearest(name, OBJECTIVES)}")
    return OBJECTIVES[name]()
