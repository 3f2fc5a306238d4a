"""Joins the images of two sources to pairs, by their names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cascade.data.notes import LONE_INPUT, NO_PARTNER, SourceFault, SourceNotes
from cascade.data.source import ImageSource, Partners
from cascade.errors import DataError
from cascade.imaging.rasters.layout import Layout

BESIDE = "beside"  # NAME.low.* lies beside NAME.high.*


class Pairing(NamedTuple):
    """Where the inputs of pairs are.

    Attributes:
        path: a folder or shards with images of the same names; or `beside` if `NAME.low.*` lies
            beside `NAME.high.*`, in a folder or in shards.
        layout: for inputs of bands, how a file is divided into images; None for colour pictures.
    """

    path: str
    layout: Layout | None = None


def join(source: ImageSource, inputs: ImageSource, place: str) -> None:
    """Give the images of a source their partners, and note which have none.

    Args:
        source: the images that a stage makes; changed in place.
        inputs: the images from which it makes them.
        place: what the user calls the inputs, for messages.

    Raises:
        DataError: if no image has a partner, or two images or two inputs have the same name.
    """
    _indices_by_key(source, "images")  # else both would get one input
    index_of = _indices_by_key(inputs, f"inputs in {place}")
    indices = [index_of.get(_key(source, index)) for index in range(len(source))]
    if all(index is None for index in indices):
        raise DataError(
            f"none of the {len(source)} images has a partner in {place}: {_key(source, 0)!r} is "
            f"not among names such as {_key(inputs, 0)!r}; give both images of a pair the same "
            "name."
        )
    source.partners = Partners(inputs, indices, place)
    faults = (*source.notes.faults, *_faults(source, source.partners))
    source.notes = SourceNotes(faults, source.notes.other_files)


def _faults(source: ImageSource, partners: Partners) -> Iterator[SourceFault]:
    """Images without a partner, and inputs that no image has."""
    for index, partner in enumerate(partners.indices):
        if partner is None:
            yield SourceFault(NO_PARTNER, source.name(index), partners.why_none)
    used, inputs = set(partners.indices), partners.source
    for index in range(len(inputs)):
        if index not in used:
            reason = "is the input of no image, because none has its name."
            yield SourceFault(LONE_INPUT, inputs.name(index), reason, harmless=True)


def _indices_by_key(source: ImageSource, noun: str) -> dict[str, int]:
    indices: dict[str, int] = {}
    for index in range(len(source)):
        key = _key(source, index)
        if key in indices:
            raise DataError(
                f"two {noun} are called {key!r}: {source.name(indices[key])} and "
                f"{source.name(index)}; remove one."
            )
        indices[key] = index
    return indices


def _key(source: ImageSource, index: int) -> str:
    return source.key(index).removeprefix("./")  # as some shards name their members
