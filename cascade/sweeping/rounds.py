"""Successive halving: many candidates on few images, the best third of them on three times as many.

Jamieson and Talwalkar 2016, arXiv 1502.07943. Unlike there, images of earlier rounds are kept, and
a round only adds to them.
"""

from __future__ import annotations

from dataclasses import dataclass

from cascade.errors import ContractError

REDUCTION = 3  # one in three candidates stays
FEWEST_IMAGES = 8


@dataclass(frozen=True)
class Round:
    """One round of a sweep.

    Attributes:
        candidates: number of candidates that are measured.
        images: number of images of each candidate, including those of earlier rounds.
    """

    candidates: int
    images: int


def plan_rounds(candidates: int, *, most_images: int, budget_images: int | None) -> list[Round]:
    """Plan how many candidates are measured on how many images.

    Args:
        candidates: number of candidates.
        most_images: largest number of images of one candidate.
        budget_images: largest number of images of all candidates together; None for no limit, so
            that all candidates get `most_images`.

    Returns:
        Rounds, each with fewer candidates than the one before; one round without a budget.

    Raises:
        ContractError: if the budget is too small for the candidates.
    """
    if budget_images is None:
        return [Round(candidates, most_images)]
    fewest = min(FEWEST_IMAGES, most_images)
    least = _cost_images(_rounds(candidates, fewest, most_images))
    if budget_images < least:
        raise ContractError(
            f"a budget of {budget_images} images is too small for {candidates} settings: give at "
            f"least {least}, or fewer values."
        )
    first = max(
        images
        for images in range(fewest, most_images + 1)
        if _cost_images(_rounds(candidates, images, most_images)) <= budget_images
    )
    return _rounds(candidates, first, most_images)


def _rounds(candidates: int, images: int, most_images: int) -> list[Round]:
    rounds = [Round(candidates, images)]
    while candidates > REDUCTION and images < most_images:
        candidates = -(-candidates // REDUCTION)
        images = min(images * REDUCTION, most_images)
        rounds.append(Round(candidates, images))
    return rounds


def _cost_images(rounds: list[Round]) -> int:
    """Number of images made in all rounds; a round keeps those of earlier ones."""
    cost, before = 0, 0
    for each in rounds:
        cost += each.candidates * (each.images - before)
        before = each.images
    return cost
