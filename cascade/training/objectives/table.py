"""The objectives by their names in recipes."""

from __future__ import annotations

from cascade.errors import ContractError, nearest
from cascade.training.objectives.autoencoding import Autoencoding
from cascade.training.objectives.consistency import Consistency
from cascade.training.objectives.denoising import Denoising
from cascade.training.objectives.objective import Objective

OBJECTIVES: dict[str, type[Objective]] = {
    "denoising": Denoising,
    "consistency": Consistency,
    "autoencoding": Autoencoding,
}


def make_objective(name: str) -> Objective:
    """Make the objective with a name.

    Raises:
        ContractError: for an unknown name; the message offers the nearest.
    """
    if name not in OBJECTIVES:
        raise ContractError(f"unknown objective {name!r}: {nearest(name, OBJECTIVES)}")
    return OBJECTIVES[name]()
