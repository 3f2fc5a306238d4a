"""Mirrored and rotated training images."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.data.augmentation import Augmentation
from cascade.data.sources import FolderSource
from cascade.data.training_images import TrainingImages
from cascade.errors import CascadeError, DataError
from cascade.imaging.writing import from_uint8
from cascade.space import Space

UPSAMPLER = Contract(Space(size_px=32), (LowResolution(size_px=8),))


def views(image: torch.Tensor) -> list[torch.Tensor]:
    """The eight ways to lay a square: rotated by quarters, and the same mirrored."""
    return [side.rot90(turns, (-2, -1)) for side in (image, image.flip(-1)) for turns in range(4)]


def view_of(part: torch.Tensor, whole: torch.Tensor) -> int:
    (place,) = [n for n, each in enumerate(views(whole)) if each.equal(part)]
    return place


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"flip": ()}, {0}),
        ({}, {0, 4}),
        ({"flip": ("y",)}, {0, 6}),  # top and bottom: left and right, and half a turn
        ({"flip": ("x", "y")}, {0, 2, 4, 6}),
        ({"flip": (), "rotate90": True}, {0, 1, 2, 3}),
        ({"flip": ("x", "y"), "rotate90": True}, set(range(8))),
    ],
)
def test_every_view_is_drawn_equally_often_and_for_conditioning_images_alike(
    pictures, options, expected
):
    images = TrainingImages(FolderSource(pictures), UPSAMPLER, seed=3, **options)
    again = TrainingImages(FolderSource(pictures), UPSAMPLER, seed=3, cache_mib=0, **options)
    order = {images.source.name(n): images.sized(n) for n in range(18)}
    counts: Counter[int] = Counter()
    for position in range(180):
        sample = images[position]
        matches = [
            (sized, n)
            for sized in order.values()
            for n, view in enumerate(views(from_uint8(sized.image)))
            if view.equal(sample.image)
        ]
        ((sized, number),) = matches
        counts[number] += 1
        small = from_uint8(sized.smaller["low_resolution"])
        assert views(small)[number].equal(sample.conditions["low_resolution"])
        if position % 20 == 19:
            assert again[position].image.equal(sample.image)  # from its own seed alone
    assert set(counts) == expected
    assert min(counts.values()) > 180 / len(expected) / 2.5


def test_rotated_crops_are_squares_of_the_same_place():
    contract = Contract(Space(size_px=(32, 48)), (LowResolution(size_px=(8, 12)),))
    augmentation = Augmentation(crop_px=16, flip=("x", "y"), rotate90=True)
    augmentation.check(contract)
    whole = torch.arange(32 * 48.0).reshape(1, 32, 48)
    for seed in range(40):
        cut = augmentation.draw((32, 48), 4, seed)
        plain = cut._replace(mirrored=(), turns=0)
        small = cut(whole[:, ::4, ::4])
        assert cut(whole).shape == (1, 16, 16)
        assert any(view.equal(cut(whole)) for view in views(plain(whole)))
        view = view_of(cut(whole), plain(whole))
        assert views(plain(whole[:, ::4, ::4]))[view].equal(small)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rotate90": True}, "rotate90 needs square images, but the stage has 48x32 px"),
        ({"crop_px": 6}, "multiple of its scale 4, got 6"),
    ],
)
def test_what_does_not_fit_the_stage_is_refused(options, words):
    contract = Contract(Space(size_px=(32, 48)), (LowResolution(size_px=(8, 12)),))
    with pytest.raises(DataError, match=words):
        Augmentation(**options).check(contract)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flip": ("z",)}, r"flip must be a list of x, y, both or neither, got \('z',\)"),
        ({"flip": ("x", "x")}, "flip must be a list of x, y, both or neither"),
        ({"flip": "xy"}, "flip must be a list of x, y, both or neither, got 'xy'"),
        ({"crop_px": 0}, "crop_px must be at least 1, got 0"),
        ({"crop_px": 2.5}, r"crop_px must be a whole number of at least 1, got 2\.5"),
        ({"rotate90": "no"}, "rotate90 must be True or False, got 'no'"),
    ],
)
def test_what_fits_no_stage_is_refused_when_it_is_made(options, words):
    with pytest.raises(CascadeError, match=words):
        Augmentation(**options)
