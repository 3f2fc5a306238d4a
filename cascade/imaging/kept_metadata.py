"""Decides which metadata of a picture to keep, update or leave out.

| metadata | what happens to it |
|---|---|
| ICC profile | kept if intact and for the picture's colours; bytes behind its end are cut off |
| resolution (DPI) | kept as `Picture.dpi`, swapped if the picture is turned by 90 degrees |
| orientation | applied to the pixels; the fields of EXIF and XMP become 1 |
| pixel size in EXIF and XMP | becomes that of the upright picture |
| colour space in EXIF and XMP | becomes sRGB if the colours were converted to sRGB, else kept |
| camera, lens, exposure, dates, place, author, copyright, comments, ratings | kept |
| all other fields of the Exif and GPS directories | kept in their own types |
| XMP | all other values kept as they are; JPEG holds a large packet in two |
| IPTC, its digest, the copyright mark and the URL of Photoshop | kept, except in WebP and GIF |
| texts of PNG | kept in PNG |
| comments of JPEG and GIF | kept in JPEG and GIF, and in PNG as the text "Comment" |
| gAMA, cHRM, sRGB, cICP, mDCV and cLLI of PNG | kept in PNG, unless the colours were converted |
| colour space of AVIF and HEIC without a profile | the same as cICP of PNG; none for sRGB |
| the maker's private notes | left out: their inner offsets break when they are moved |
| image descriptions that state the layout, as of tifffile, ImageJ and OME | left out |
| other private TIFF fields, Photoshop paths, content credentials (C2PA) | left out |
| thumbnail, file layout, time of the last change of a PNG | left out: they describe the old file |
| a damaged field of EXIF | left out, with the fields after it in the same directory |
| XMP that cannot be parsed safely | left out |

Further pictures and videos in a JPEG, extra channels of TIFF, and bits that are not read are listed
as well (`jpeg_segments.py`, `tiff_reading.py`, `picture_reading.py`).

What is left out is listed in `Metadata.losses`, except what describes the old file. To it
`losses_in_format` adds what a file format cannot hold.

Shapes: sizes are (H, W) in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cascade.imaging import xmp_packets
from cascade.imaging.jpeg_segments import holds_xmp
from cascade.imaging.kept_exif import exif_losses, kept_exif, renewed_exif
from cascade.imaging.metadata import COMMENT, Loss, Metadata, Text
from cascade.imaging.xmp_packets import EXIF, PHOTOSHOP, TIFF, PacketError

ORIENTATION = (TIFF, "Orientation")
SRGB_VALUES = {
    (EXIF, "ColorSpace"): "1",
    (PHOTOSHOP, "ColorMode"): "3",
    (PHOTOSHOP, "ICCProfile"): "sRGB IEC61966-2.1",
}
NAMES = {"png": "PNG", "jpeg": "JPEG", "webp": "WebP", "tiff": "TIFF", "gif": "GIF"}
GAMMA_OF_SRGB = (45455).to_bytes(4, "big")
# of texts that ImageMagick copies from EXIF: index into (H, W)
SIDE_OF_TEXT = {
    "exif:PixelYDimension": 0,
    "exif:ExifImageLength": 0,
    "exif:ImageLength": 0,
    "exif:PixelXDimension": 1,
    "exif:ExifImageWidth": 1,
    "exif:ImageWidth": 1,
}


def kept(stored: Metadata, size: tuple[int, int], *, is_srgb_now: bool) -> Metadata:
    """Reduce the metadata of a file to what a picture keeps of it.

    Args:
        stored: all metadata of the file; `exif` may be a whole TIFF file.
        size: (H, W) of the upright picture in pixels.
        is_srgb_now: whether the colours were converted to sRGB.
    """
    block = stored.exif
    return renewed(
        replace(
            stored,
            exif=None if block is None else kept_exif(block, size),
            losses=stored.losses + (() if block is None else exif_losses(block)),
        ),
        size,
        is_srgb_now=is_srgb_now,
    )


def renewed(metadata: Metadata, size: tuple[int, int], *, is_srgb_now: bool) -> Metadata:
    """Bring size, orientation and colour space up to date.

    Args:
        metadata: what a picture kept of its file.
        size: (H, W) of the upright picture in pixels.
        is_srgb_now: whether the colours were converted to sRGB.
    """
    exif, xmp, losses = metadata.exif, metadata.xmp, list(metadata.losses)
    height, width = size
    values = {ORIENTATION: "1"} | (SRGB_VALUES if is_srgb_now else {})
    values |= dict.fromkeys([(EXIF, "PixelYDimension"), (TIFF, "ImageLength")], str(height))
    values |= dict.fromkeys([(EXIF, "PixelXDimension"), (TIFF, "ImageWidth")], str(width))
    try:
        xmp = xmp and xmp_packets.with_values(xmp, values)
    except PacketError:
        xmp = None
        losses.append(Loss("XMP", "it is damaged"))
    if is_srgb_now:
        losses += _lost_colours(metadata, "the colours became sRGB")
    return replace(
        metadata,
        exif=exif and renewed_exif(exif, size, is_srgb_now=is_srgb_now),
        xmp=xmp,
        texts=tuple(_renewed_text(text, size) for text in metadata.texts),
        colour_chunks=() if is_srgb_now else metadata.colour_chunks,
        losses=tuple(dict.fromkeys(losses)),
    )


def _renewed_text(text: Text, size: tuple[int, int]) -> Text:
    if text.keyword == "exif:Orientation":
        return replace(text, text="1")
    side = SIDE_OF_TEXT.get(text.keyword)
    return text if side is None else replace(text, text=str(size[side]))


def losses_in_format(metadata: Metadata, file_format: str, *, has_profile: bool) -> list[Loss]:
    """List what is not kept of a file's metadata when it is written in a format.

    Args:
        metadata: what the picture keeps.
        file_format: one of "png", "jpeg", "webp", "tiff" and, for animations, "gif".
        has_profile: whether the picture has an ICC profile.
    """
    return [*metadata.losses, *_not_held(metadata, file_format, has_profile)]


def losses_without_metadata(metadata: Metadata, *, has_profile: bool) -> list[Loss]:
    """List what is lost of the colours' description when no metadata is written.

    Args:
        metadata: what the picture keeps.
        has_profile: whether the picture has an ICC profile.
    """
    lost = [loss for loss in metadata.losses if loss.is_colour]
    return [*lost, *_lost_colours(metadata, "metadata was left out", has_profile)]


def _not_held(metadata: Metadata, file_format: str, has_profile: bool) -> Iterator[Loss]:
    if file_format == "png":
        return
    why = f"{NAMES[file_format]} cannot hold"
    if file_format in ("webp", "gif") and (metadata.iptc or metadata.photoshop):
        yield Loss("IPTC", f"{why} it")
    if file_format == "gif" and metadata.exif is not None:
        yield Loss("EXIF", f"{why} it")
    if file_format == "jpeg" and metadata.xmp is not None and not holds_xmp(metadata.xmp):
        yield Loss("XMP", f"{why} so much of it")
    is_comment = [text.keyword == COMMENT for text in metadata.texts]
    if not all(is_comment):
        yield Loss("PNG texts", f"{why} them")
    if any(is_comment) and file_format not in ("jpeg", "gif"):
        yield Loss("comments", f"{why} them")
    yield from _lost_colours(metadata, f"{why} them", has_profile)


def _lost_colours(metadata: Metadata, why: str, has_profile: bool = False) -> Iterator[Loss]:
    """The colour chunks whose loss changes how the picture looks.

    A profile overrides all of them except cICP. Without any, colours count as sRGB.
    """
    chunks = dict(metadata.colour_chunks)
    is_plain = has_profile or b"sRGB" in chunks or chunks.get(b"gAMA") == GAMMA_OF_SRGB
    names = [b"cICP", b"mDCV", b"cLLI"] + ([] if is_plain else [b"gAMA", b"cHRM"])
    lost = [name.decode() for name in names if name in chunks]
    if lost:
        yield Loss(f"PNG colour chunks {', '.join(lost)}", why, is_colour=True)
