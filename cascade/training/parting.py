"""Reads the curves of the validation loss: where it parts from that of the training images.

Both are measured alike, with averaged weights, fixed noise and fixed times, so that small
differences mean something.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST = 4  # measurements, to say anything about a trend
CHANGE = 0.02  # smallest change of a loss that counts, as a share of it


@dataclass(frozen=True)
class Parting:
    """What the curves of a run show.

    Attributes:
        advice: one sentence: what they show, and what it suggests.
        images: number of images seen where the curves part; None if they do not.
    """

    advice: str
    images: float | None = None


def waited(losses: Sequence[float]) -> int:
    """The number of measurements after the one with the lowest loss."""
    return len(losses) - 1 - _lowest(losses) if losses else 0


def find_parting(
    images: Sequence[float], held_out: Sequence[float], training: Sequence[float]
) -> Parting:
    """Compare the losses of held-out images and of training images over a run.

    Args:
        images: number of images seen at each measurement, ascending; at least one.
        held_out: the validation loss at each.
        training: the loss of training images at each, measured in the same way.
    """
    if not (math.isfinite(held_out[-1]) and math.isfinite(training[-1])):
        return Parting(
            "The losses are no longer finite: training became unstable, so lower the learning rate."
        )
    if len(images) < FEWEST:
        return Parting(f"The curves have fewer than {FEWEST} measurements, too few to judge by.")
    lowest, third = _lowest(held_out), (len(images) - 1) * 2 // 3
    if _rises(held_out, lowest):
        return _rising(images[lowest], falls=not _rises(training, lowest))
    if _falls(held_out, third):
        return Parting("The validation loss still falls at the end: a longer run should help.")
    if _falls(training, third):
        near = next(n for n, loss in enumerate(held_out) if loss <= _margin(held_out[lowest]))
        return Parting(
            f"The validation loss has hardly fallen since {images[near]:,.0f} images, while the "
            "training loss still falls: more or more varied images would help more than a longer "
            "run.",
            images[near],
        )
    return Parting(
        "Neither loss falls any more: a longer run would change little, but a larger network "
        "might help."
    )


def _rising(images: float, *, falls: bool) -> Parting:
    """What it means that the validation loss rises since a number of images."""
    if falls:
        return Parting(
            f"Since {images:,.0f} images the validation loss has risen while the training loss "
            "has not: the stage overfits, so stop there or train on more or more varied images.",
            images,
        )
    return Parting(
        f"Both losses have risen since {images:,.0f} images: training became unstable, so lower "
        "the learning rate."
    )


def _lowest(losses: Sequence[float]) -> int:
    """The place of the lowest loss; one that is not a number counts as infinite."""
    return min(range(len(losses)), key=lambda n: losses[n] if losses[n] == losses[n] else math.inf)


def _margin(loss: float) -> float:
    return loss + abs(loss) * CHANGE


def _rises(losses: Sequence[float], since: int) -> bool:
    return losses[-1] > _margin(losses[since])


def _falls(losses: Sequence[float], since: int) -> bool:
    return _margin(losses[-1]) < losses[since]
