"""Saves pictures of Python with the mark that results of the command line have."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

from PIL import Image

from cascade import __version__
from cascade.arguments import check_kind
from cascade.errors import ContractError, OutputError
from cascade.imaging.marks import TYPES, Source, with_mark
from cascade.imaging.picture import Picture
from cascade.imaging.picture_writing import write_picture
from cascade.imaging.rasters.file_mark import FileMark
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.writing import write_rasters


def save_marked(
    image: Image.Image | Picture | Raster,
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
        CascadeError: if the format cannot hold the picture or the mark (`.npy`), or the file
            cannot be written.
    """
    kinds = Image.Image | Picture | Raster
    check_kind("image", image, kinds, "one PIL image, Picture or Raster; save each alone")
    check_kind("path", path, str | PathLike, "the path of a file")
    check_kind("model", model, str, "the name of a model")
    if not isinstance(source, str) or source not in TYPES:
        raise ContractError(f"source must be one of {', '.join(TYPES)}, got {source!r}.")
    settings = {"model": model, "version": __version__}
    if isinstance(image, Raster):
        if Path(path).suffix.lower() == ".npy":
            raise OutputError(f"cannot mark {path}: .npy holds numbers alone; write .npz instead.")
        was_generated = image.origin is not None and image.origin.is_generated
        is_generated = source == "generated" or was_generated
        mark = FileMark.of_result(settings, is_generated=is_generated)
        write_rasters(Path(path), [image], mark=mark)
        return
    picture = Picture.from_pil(image) if isinstance(image, Image.Image) else image
    if source == "generated":
        marked = with_mark(picture.metadata.xmp, source, settings)
        picture = replace(picture, metadata=replace(picture.metadata, xmp=marked))
    write_picture(picture, Path(path), settings=settings)
