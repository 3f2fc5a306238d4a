"""Successive halving: many settings on few images, the best third of them on three times as many.

Jamieson and Talwalkar 2016, arXiv 1502.07943, with the images of earlier rounds kept, so that a
round only adds to them.
"""

from __future__ import annotations

from dataclasses import dataclass

from cascade.errors import ContractError

KEPT_OF = 3  # one of so many goes on
FEWEST_IMAGES = 8


@dataclass(frozen=True)
class Round:
    """One round of a sweep.

    Attributes:
        candidates: how many are measured in it.
        images: on how many images each.
    """

    candidates: int
    images: int


def plan_rounds(candidates: int, *, most_images: int, budget_images: int | None) -> list[Round]:
    """Say how many candidates are measured on how many images.

    Args:
        candidates: how many there are.
        most_images: of one candidate.
        budget_images: of all candidates together; None for all candidates on most images.

    Returns:
        Rounds, of which each has fewer candidates than the last; one round without a budget.

    Raises:
        ContractError: if the budget is too small for the candidates.
    """
    if budget_images is None:
        return [Round(candidates, most_images)]
    fewest = min(FEWEST_IMAGES, most_images)
    least = _cost(_rounds(candidates, fewest, most_images))
    if budget_images < least:
        raise ContractError(
            f"a budget of {budget_images} images is too small for {candidates} settings: give at "
            f"least {least}, or fewer values."
        )
    first = max(
        images
        for images in range(fewest, most_images + 1)
        if _cost(_rounds(candidates, images, most_images)) <= budget_images
    )
    return _rounds(candidates, first, most_images)


def _rounds(candidates: int, images: int, most_images: int) -> list[Round]:
    rounds = [Round(candidates, images)]
    while candidates > KEPT_OF and images < most_images:
        candidates = -(-candidates // KEPT_OF)
        images = min(images * KEPT_OF, most_images)
        rounds.append(Round(candidates, images))
    return rounds


def _cost(rounds: list[Round]) -> int:
    """Images of all rounds, those of earlier rounds being kept."""
    made, before = 0, 0
    for each in rounds:
        made += each.candidates * (each.images - before)
        before = each.images
    return made
