"""Saves pictures of Python with the mark that results of the command line have."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

from PIL import Image

from cascade import __version__
from cascade.arguments import check_kind
from cascade.errors import ContractError
from cascade.imaging.marks import TYPES, Source, with_mark
from cascade.imaging.picture import Picture
from cascade.imaging.picture_writing import write_picture


def save_marked(
    image: Image.Image | Picture,
    path: str | PathLike[str],
    source: Source,
    *,
    model: str = "",
) -> None:
    """Save a picture with the IPTC's mark for pictures that a trained model made or changed.

    Args:
        image: a result of a pipeline.
        path: the file to write; its ending names the format.
        source: "generated" for pictures that were drawn from noise, "restored" for those that were
            upscaled, coloured, restored or edited.
        model: name of the model, which the file records; empty for none.

    Raises:
        CascadeError: if the format cannot hold the picture, or the file cannot be written.
    """
    check_kind("image", image, Image.Image | Picture, "one PIL image or Picture; save each alone")
    check_kind("path", path, str | PathLike, "the path of a file")
    check_kind("model", model, str, "the name of a model")
    if not isinstance(source, str) or source not in TYPES:
        raise ContractError(f"source must be one of {', '.join(TYPES)}, got {source!r}.")
    picture = Picture.from_pil(image) if isinstance(image, Image.Image) else image
    settings = {"model": model, "version": __version__}
    if source == "generated":
        marked = with_mark(picture.metadata.xmp, source, settings)
        picture = replace(picture, metadata=replace(picture.metadata, xmp=marked))
    write_picture(picture, Path(path), settings=settings)
