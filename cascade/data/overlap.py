"""Finds images that two sets share, such as those for training and those for validation.

Shapes: N and M images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cascade.data.source import ImageSource
from cascade.data.splitting import file_content
from cascade.imaging.writing import to_uint8
from cascade.resizing import resize

LOOK_PX = 8
ALIKE_RMS = 2.0  # in levels of 255; 95 % of emoji halved in size and saved as JPEG are below it
AT_A_TIME = 4096


class Look(NamedTuple):
    """What an image looks like, for comparison with others.

    Attributes:
        name: its name for messages.
        content: hash of its pixels and their shape.
        thumbnail: (C, 8, 8) uint8; None for bands, of which only the pixels are compared.
    """

    name: str
    content: str
    thumbnail: Tensor | None


class SharedImage(NamedTuple):
    """An image of one set that is in the other one too.

    Attributes:
        name: its name in the first set.
        other: its name in the second set.
        is_same: whether all pixels are the same, not only nearly so.
    """

    name: str
    other: str
    is_same: bool


def thumbnail(image: Tensor) -> Tensor:
    """An image (C, H, W) in [-1, 1], shrunk with an antialiased kernel: (C, 8, 8) uint8."""
    return to_uint8(resize(image[None], (LOOK_PX, LOOK_PX), "bilinear")[0])


def shared_images(looks: Sequence[Look], others: Sequence[Look]) -> list[SharedImage]:
    """List the images that have the same pixels as one of another set, or nearly the same.

    Args:
        looks: the images.
        others: the images of the other set.
    """
    by_content = {other.content: other.name for other in reversed(others)}
    same = [
        SharedImage(look.name, by_content[look.content], True)
        for look in looks
        if look.content in by_content
    ]
    rest = [look for look in looks if look.content not in by_content and look.thumbnail is not None]
    pictures = [other for other in others if other.thumbnail is not None]
    if not rest or not pictures:
        return same
    return same + _alike(rest, pictures)


def _alike(looks: Sequence[Look], others: Sequence[Look]) -> list[SharedImage]:
    """The images whose nearest other thumbnail is nearly the same."""
    theirs = _vectors(others)
    alike = []
    for first in range(0, len(looks), AT_A_TIME):
        part = looks[first : first + AT_A_TIME]
        nearest, places = _nearest(_vectors(part), theirs)
        for look, rms, place in zip(part, nearest.tolist(), places.tolist(), strict=True):
            if rms <= ALIKE_RMS:
                alike.append(SharedImage(look.name, others[place].name, False))
    return alike


def _nearest(vectors: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The root mean square (N,) to the nearest of the others (M, D), and its place (N,)."""
    best = torch.full((len(vectors),), torch.inf)
    places = torch.zeros(len(vectors), dtype=torch.long)
    for first in range(0, len(others), AT_A_TIME):
        distances = torch.cdist(vectors, others[first : first + AT_A_TIME])
        low, place = (distances / vectors.shape[1] ** 0.5).min(dim=1)
        places = torch.where(low < best, place + first, places)
        best = torch.minimum(low, best)
    return best, places


def _vectors(looks: Sequence[Look]) -> Tensor:
    thumbnails = [look.thumbnail for look in looks if look.thumbnail is not None]
    return torch.stack(thumbnails).flatten(1).float()


def shared_files(source: ImageSource, other: ImageSource) -> list[tuple[str, str]]:
    """List the images of a source whose files another source holds too, byte for byte.

    Files are read only if both sources have one of the same size. Images of unknown size, as in
    Hugging Face data sets, are not compared, because all of them would have to be read.

    Returns:
        Pairs of names: an image, and the image of the other source.
    """
    files, others = first_of_files(source), first_of_files(other)
    sizes = {source.size_bytes(i) for i in files} & {other.size_bytes(i) for i in others} - {None}
    candidates = [i for i in others if other.size_bytes(i) in sizes]
    by_content = {file_content(other, i): other.name(i) for i in reversed(candidates)}
    own = ((i, file_content(source, i)) for i in files if source.size_bytes(i) in sizes)
    return [(source.name(i), by_content[text]) for i, text in own if text in by_content]


def first_of_files(source: ImageSource) -> list[int]:
    """The first image of each file; only stacks and volumes hold others."""
    return [index for index in range(len(source)) if source.number_in_file(index) == 0]
