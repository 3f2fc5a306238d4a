"""From a `Picture` to a PNG, JPEG, WebP or TIFF file.

- The ending of the file's name decides the format.
- PNG and TIFF (deflate) hold 8 and 16 bits and transparency without loss. JPEG has quality 95 and
  full colour resolution (4:4:4). WebP has quality 95 and a quarter of the colour resolution
  (4:2:0), since the format has no more. What a format cannot hold is refused, never reduced
  silently.
- The ICC profile is always written, since the colours would be wrong without it. EXIF, XMP, IPTC,
  texts, colour chunks of PNG, resolution (DPI) and settings are metadata, which can be left out.
  What a picture keeps of its file: see `cascade/imaging/kept_metadata.py`; how the metadata gets
  into the file: `cascade/imaging/extras.py`.
- Settings are JSON: in PNG in the text chunk `cascade`, elsewhere in the EXIF field ImageHistory.
  With them goes a mark in XMP that a trained model changed the picture (`marks.py`).
- A file appears under its name only when it is complete.
- PNG, JPEG and TIFF are written strip by strip, without a copy of the pixels; WebP needs about two.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from cascade.errors import OutputError
from cascade.imaging.credentials import Signer, signed_file
from cascade.imaging.extras import Extras
from cascade.imaging.gif_blocks import settings_in_gif
from cascade.imaging.jpeg_segments import MAX_EXIF_BYTES, add_to_jpeg
from cascade.imaging.kept_exif import (
    exif_with_resolution_and_settings,
    parsed_settings,
    settings_in_exif,
)
from cascade.imaging.kept_metadata import NAMES, losses_in_format, losses_without_metadata
from cascade.imaging.marks import with_mark
from cascade.imaging.metadata import Loss, Metadata
from cascade.imaging.opening import format_of, opened_image
from cascade.imaging.picture import Picture
from cascade.imaging.png_chunks import add_to_png
from cascade.imaging.tiff_assembly import add_to_tiff
from cascade.imaging.tiff_pages import main_pages, opened_tiff
from cascade.imaging.vips import (
    FORM_OF_BITS,
    GREY_OF_BITS,
    PROFILE,
    RGB_OF_BITS,
    cause_of,
    libvips,
)
from cascade.imaging.webp_chunks import add_to_webp

FORMAT_OF_SUFFIX = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
FORMAT_OF_SUFFIX |= {".tif": "tiff", ".tiff": "tiff", ".apng": "png"}
FORMAT_OF_SUFFIX |= dict.fromkeys((".jpe", ".jif", ".jfif"), "jpeg")
FORMAT_OF_SUFFIX |= {".gif": "gif"}  # for animations alone
MAX_SIDE_PX = {"jpeg": 65_535, "webp": 16_383, "gif": 65_535}
MAX_TIFF_BYTES = 2**32 - 2**24  # offsets in TIFF have 32 bits
OPTIONS = {
    "png": {"compression": 6, "filter": "all"},
    "jpeg": {"Q": 95, "subsample_mode": "off"},
    "webp": {"Q": 95},
    "tiff": {"compression": "deflate", "predictor": "horizontal"},
}
ADD = {
    "png": add_to_png,
    "jpeg": add_to_jpeg,
    "webp": add_to_webp,
    "tiff": add_to_tiff,
}


def write_picture(
    picture: Picture,
    path: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    metadata: bool = True,
    signer: Signer | None = None,
) -> None:
    """Write a picture with what belongs to it.

    Args:
        picture: pixels, profile and metadata.
        path: the file to write; its ending names the format.
        settings: how the picture was made, anything that JSON can hold; see `read_mark`.
        metadata: whether to write metadata, resolution and settings; the ICC profile is always
            written.
        signer: who signs the file; None for nobody.

    Raises:
        OutputError: if the format cannot hold the picture, or the file cannot be written.
    """
    has_alpha = picture.alpha is not None
    kind = check_format(path, size=picture.size, bits=picture.bits, has_alpha=has_alpha)
    extras = extras_of(picture, kind, settings, metadata)
    check_exif(path, extras.exif)
    with (
        signed_file(path, signer, "restored", settings, picture.metadata.xmp) as temporary,
        tempfile.TemporaryFile(dir=path.parent) as pixel_file,
    ):
        write_pixels(picture, kind, pixel_file, path)
        with temporary.open("wb") as file:
            ADD[kind](pixel_file, file, extras)


def check_format(
    path: Path,
    *,
    size: tuple[int, int],
    bits: int,
    has_alpha: bool,
    pages: int = 1,
    is_animation: bool = False,
) -> str:
    """Check, before the work is done, that a file of this name can hold a picture.

    Args:
        path: the file to write; its ending names the format.
        size: (H, W) in pixels, of the largest page if there are several.
        bits: per channel, 8 or 16.
        has_alpha: whether the picture has transparency.
        pages: number of pages or frames.
        is_animation: whether these are frames.

    Returns:
        The format, one of FORMATS.

    Raises:
        OutputError: if the ending names no format, or its format cannot hold the picture.
    """
    kind = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if kind is None:
        endings = ", ".join(FORMAT_OF_SUFFIX)
        raise OutputError(
            f"cannot write {path}: the ending {path.suffix!r} names no format; use {endings}."
        )
    obstacle = _obstacle_of_pages(kind, pages, is_animation)
    obstacle = obstacle or _obstacle(kind, size, bits, has_alpha)
    if obstacle is not None:
        raise OutputError(f"cannot write {path}: {obstacle}.")
    return kind


def _obstacle(kind: str, size: tuple[int, int], bits: int, has_alpha: bool) -> str | None:
    """Say why a format cannot store a picture, and which format can."""
    height, width = size
    name, max_side_px = NAMES[kind], MAX_SIDE_PX.get(kind)
    if kind == "tiff" and height * width * bits // 8 * (4 if has_alpha else 3) > MAX_TIFF_BYTES:
        return "TIFF holds 4 GiB at most; write PNG"
    if max_side_px is not None and max(size) > max_side_px:
        return f"{name} holds {max_side_px} px a side at most; write PNG or TIFF"
    if kind in ("jpeg", "webp") and bits == 16:
        return f"{name} has no 16 bits; write PNG or TIFF"
    if kind == "jpeg" and has_alpha:
        return "JPEG has no transparency; write PNG, WebP or TIFF"
    return None


def _obstacle_of_pages(kind: str, pages: int, is_animation: bool) -> str | None:
    """Say why a format cannot store so many pages, and which format can."""
    if kind == "gif" and not is_animation:
        return "GIF is written for animations only; write PNG"
    if pages == 1 or kind == "tiff":
        return None
    if kind == "jpeg":
        ways = "PNG, WebP or TIFF" if is_animation else "TIFF"
        return f"JPEG holds one page, this has {pages}; write {ways}, or take the first alone"
    if not is_animation:
        why = f"{NAMES[kind]} holds several pages as an animation only"
        return f"{why}, this has {pages}; write TIFF, or take the first alone"
    return None


def check_exif(path: Path, block: bytes | None) -> None:
    """Check that a file of this name can hold an EXIF block.

    Args:
        path: the file to write; its ending names the format.
        block: without the header `Exif`, or None.

    Raises:
        OutputError: if the block is too large for the format.
    """
    kind = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if kind == "jpeg" and len(block or b"") > MAX_EXIF_BYTES:
        raise OutputError(
            f"cannot write {path}: its EXIF is more than the 64 KiB that JPEG can hold; write PNG "
            "or TIFF, or leave the metadata out."
        )


def lost_metadata(picture: Picture, path: Path, *, metadata: bool = True) -> tuple[Loss, ...]:
    """List what `write_picture` does not keep of the file that a picture came from.

    Args:
        picture: the picture to write.
        path: the file to write; its ending names the format.
        metadata: whether metadata is written; without it, only what concerns the colours is listed.
    """
    kind = FORMAT_OF_SUFFIX.get(path.suffix.lower(), picture.format)
    has_profile = picture.profile is not None
    if metadata:
        losses = losses_in_format(picture.metadata, kind, has_profile=has_profile)
    else:
        losses = losses_without_metadata(picture.metadata, has_profile=has_profile)
    return tuple(dict.fromkeys(losses))


def settings_in(data: bytes, name: str) -> dict[str, Any] | None:
    """Read back the settings that `write_picture` or `save_png` recorded in the bytes of a file.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.

    Raises:
        DataError: if it is not an image.
    """
    if format_of(data, name) == "TIFF":  # Pillow opens neither bands nor grey of 16 bits with alpha
        with opened_tiff(data, name) as file:
            main_pages(file, name, at_most=1)
        return settings_in_exif(data)
    with opened_image(data, name) as image:
        text = image.info.get("cascade") if image.format == "PNG" else None
        if image.format == "GIF":
            text = settings_in_gif(image.info)
        block = image.info.get("exif")
    if isinstance(text, str):
        return parsed_settings(text)
    return settings_in_exif(block) if block else None


def extras_of(
    picture: Picture, kind: str, settings: Mapping[str, Any] | None, metadata: bool
) -> Extras:
    """Collect what is added to the file of a picture; see `write_picture`.

    Args:
        picture: the picture.
        kind: the format, one of FORMATS.
        settings: to record, or None.
        metadata: whether metadata and settings are written.
    """
    text, block = None, None
    if metadata and kind in ("png", "gif"):
        text = None if settings is None else json.dumps(settings)
        block = picture.metadata.exif  # these two have another place for the settings
        block = block and exif_with_resolution_and_settings(block, picture.dpi, None)
    elif metadata:
        block = exif_with_resolution_and_settings(picture.metadata.exif, picture.dpi, settings)
    kept = picture.metadata if metadata else Metadata()
    if metadata and settings is not None:
        kept = replace(kept, xmp=with_mark(kept.xmp, "restored", settings))
    return Extras(
        metadata=kept,
        exif=block,
        dpi=picture.dpi if metadata else None,
        settings=text,
        profile=picture.profile if kind == "png" else None,
        size=picture.size,
    )


def write_pixels(picture: Picture, kind: str, file: BinaryIO, path: Path, **options: Any) -> None:
    """Write the pixels and the profile of a picture, and go back to the start of the file.

    libvips joins the planes itself, without a copy.

    Args:
        picture: the picture.
        kind: the format, one of FORMATS.
        file: an empty file on disk, open for writing and reading.
        path: the final file, for error messages.
        options: options of libvips, beside those of `OPTIONS`.

    Raises:
        OutputError: if the file cannot be written.
    """
    vips = libvips()
    planes = list(picture.colour) + ([] if picture.alpha is None else [picture.alpha[0]])
    bands = [_plane(plane, picture.bits) for plane in planes]
    image = bands[0].bandjoin(bands[1:]) if len(bands) > 1 else bands[0]
    interpretations = GREY_OF_BITS if len(picture.colour) == 1 else RGB_OF_BITS
    image = image.copy(interpretation=interpretations[picture.bits])
    if picture.profile is not None and kind != "png":  # see `extras.py`
        image.set_type(vips.GValue.blob_type, PROFILE, picture.profile)
    try:
        target = vips.Target.new_to_descriptor(file.fileno())
        getattr(image, f"{kind}save_target")(target, keep="icc", **OPTIONS[kind], **options)
    except vips.Error as error:
        raise OutputError(f"cannot write {path}: {cause_of(error)}.") from error
    file.seek(0)


def _plane(plane: Tensor, bits: int) -> Any:
    """A plane, (H, W), as a libvips image that shares its memory."""
    values = plane.cpu().contiguous().numpy()
    height, width = values.shape
    return libvips().Image.new_from_memory(values.data, width, height, 1, FORM_OF_BITS[bits])
