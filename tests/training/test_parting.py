from __future__ import annotations

import math
import re

import pytest

from cascade.training.parting import find_parting, waited

IMAGES = [100.0 * n for n in range(1, 9)]
FALLING = [8.0, 6.0, 5.0, 4.0, 3.5, 3.0, 2.7, 2.4]
FLAT = [8.0, 5.0, 4.0, 3.02, 3.0, 3.01, 3.0, 3.0]
RISING = [8.0, 5.0, 4.0, 3.5, 3.6, 3.9, 4.4, 5.0]


@pytest.mark.parametrize(
    ("held_out", "training", "images", "words"),
    [
        (
            RISING,
            FALLING,
            400,
            "Since 400 images the validation loss has risen .* overfits, so stop",
        ),
        (FLAT, FALLING, 400, "hardly fallen since 400 images, .* more or more varied images"),
        (FALLING, FALLING, None, "still falls at the end: a longer run should help"),
        (FLAT, FLAT, None, "Neither loss falls any more"),
        ([*FALLING[:7], math.nan], [*FALLING[:7], math.nan], None, "became unstable, so lower"),
        ([*RISING[:7], math.inf], FALLING, None, "became unstable, so lower"),
        (
            RISING,
            RISING,
            None,
            "Both losses have risen since 400 images: .* lower the learning rate",
        ),
    ],
)
def test_the_curves_are_read_as_a_person_would(held_out, training, images, words):
    parting = find_parting(IMAGES, held_out, training)
    assert parting.images == images
    assert re.search(words, parting.advice), parting.advice
    assert parting.advice.count(". ") == 0


def test_changes_of_less_than_two_percent_are_no_trend():
    flat = [3.0, 3.03, 2.98, 3.0]
    assert find_parting(IMAGES[:4], flat, flat).images is None
    assert "Neither loss" in find_parting(IMAGES[:4], flat, flat).advice


def test_few_measurements_are_not_judged():
    assert "too few" in find_parting([1.0, 2.0, 3.0], [3, 2, 9], [3, 2, 1]).advice


def test_waiting_counts_the_measurements_since_the_lowest():
    assert [waited(RISING[:n]) for n in range(9)] == [0, 0, 0, 0, 0, 1, 2, 3, 4]
    assert waited([math.nan, 3.0, math.nan, 4.0]) == 2
    assert waited([3.0, 3.0]) == 1  # the same loss again is no lower one
