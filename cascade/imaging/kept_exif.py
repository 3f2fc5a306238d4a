"""Decides which fields of EXIF and TIFF a picture keeps, and brings them up to date.

Which these are: see `cascade/imaging/kept_metadata.py`.

Settings of this program are recorded as JSON in the Exif field ImageHistory (0x9213, "what has been
done to the image", TIFF/EP), where they do not replace anybody's comment. PNG files hold them in a
text chunk instead (`cascade/imaging/png_chunks.py`).

Shapes: sizes are (H, W) in pixels. Blocks begin with the TIFF head, without the header `Exif`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from PIL.ExifTags import IFD, Base
from PIL.TiffTags import ASCII, LONG, SHORT

from cascade.imaging.exif_blocks import (
    MAIN,
    Directories,
    Directory,
    read_directories,
    set_field,
    texts_of,
    write_block,
)
from cascade.imaging.metadata import Loss
from cascade.imaging.resolution import RESOLUTION_TAGS, set_resolution

IMAGE_HISTORY = int(Base.ImageHistory)
SRGB, R98 = 1, b"R98"  # of the fields ColorSpace and InteropIndex
KEPT_TAGS = {  # of the main directory; the Exif and GPS directories are kept whole
    Base.DocumentName,
    Base.ImageDescription,
    Base.Make,
    Base.Model,
    Base.PageName,
    Base.Software,
    Base.DateTime,
    Base.Artist,
    Base.HostComputer,
    Base.Rating,
    Base.RatingPercent,
    Base.Copyright,
    Base.XPTitle,  # this one and the next four are written by Windows
    Base.XPComment,
    Base.XPAuthor,
    Base.XPKeywords,
    Base.XPSubject,
    Base.LensInfo,
    Base.YCbCrPositioning,  # of cameras; all positions agree where no colour is halved
    11,  # ProcessingSoftware
    0xC614,  # UniqueCameraModel, as the next two from DNG
    0xC62F,  # CameraSerialNumber
    0xC7A1,  # CameraLabel
}
LAYOUT_TAGS = {  # they describe the pixels, pages and thumbnails of the old file
    *range(254, 267),
    *range(273, 285),
    *range(286, 302),
    *range(317, 348),
    *range(512, 531),
    532,
    *(700, 33723, 34377, 34675),  # XMP, IPTC, Photoshop and profile: read elsewhere
    *(IFD.Exif, IFD.GPSInfo, IFD.Interop, Base.MakerNote, Base.Orientation),
    *(Base.TransferFunction, Base.WhitePoint, Base.PrimaryChromaticities),
    *(37724, 50341, 59932),  # layers of Photoshop, print settings, padding
    *range(20480, 20800),  # thumbnails of Windows
}
DESCRIPTIONS_OF_LAYOUT = (b"ImageJ=", b"SCIFIO=", b"Aperio ", b"shape=(")  # how they begin
XML_OF_LAYOUT = (b"openmicroscopy.org", b"leica-microsystems.com/scn", b"perkinelmer-qpi")
MAKER_NOTES = Loss("maker notes", "their inner offsets break when they are moved")
DESCRIPTION = Loss("image description", "it describes the layout of the old file")
PRIVATE = Loss("private TIFF fields", "their meaning is not known")


def kept_exif(block: bytes, size: tuple[int, int], at: int | None = None) -> bytes | None:
    """Reduce an EXIF block to what a picture keeps of it.

    Args:
        block: EXIF of a file, or a whole TIFF file.
        size: (H, W) of the upright picture in pixels.
        at: offset of the main directory in bytes; None for the first one.

    Returns:
        A block, or None if the file has no EXIF that is kept.
    """
    directories = read_directories(block, at)
    main = directories[MAIN]
    for tag in main.keys() - KEPT_TAGS:
        del main[tag]
    if Base.ImageDescription in main:
        description = _own_description(block, at, main)
        if description is None:
            del main[Base.ImageDescription]
        else:
            main[Base.ImageDescription] = description
    directories.get(IFD.Exif, {}).pop(Base.MakerNote, None)
    if not any(directories.values()):
        return None
    set_field(main, Base.Orientation, SHORT, 1)
    return _renewed(directories, size, is_srgb_now=False)


def exif_losses(block: bytes, at: int | None = None) -> tuple[Loss, ...]:
    """List what `kept_exif` leaves out, except what describes the old file alone."""
    directories = read_directories(block, at)
    main = directories[MAIN]
    has_private = bool(main.keys() - KEPT_TAGS - LAYOUT_TAGS - set(RESOLUTION_TAGS))
    losses = (
        (MAKER_NOTES, Base.MakerNote in directories.get(IFD.Exif, {})),
        (
            DESCRIPTION,
            Base.ImageDescription in main and _own_description(block, at, main) is None,
        ),
        (PRIVATE, has_private),
    )
    return tuple(loss for loss, is_lost in losses if is_lost)


def renewed_exif(block: bytes, size: tuple[int, int], *, is_srgb_now: bool = False) -> bytes:
    """Bring the pixel size and colour space in an EXIF block up to date, if the block has them.

    Args:
        block: EXIF block that `kept_exif` returned.
        size: (H, W) of the picture in pixels.
        is_srgb_now: whether the colours were converted to sRGB.
    """
    return _renewed(read_directories(block), size, is_srgb_now=is_srgb_now)


def exif_with_resolution_and_settings(
    block: bytes | None, dpi: tuple[float, float] | None, settings: Mapping[str, Any] | None
) -> bytes | None:
    """Complete an EXIF block for a file format that has no other place for these two.

    Args:
        block: EXIF block that `kept_exif` returned.
        dpi: pixels per inch, across and down.
        settings: how the picture was made; anything that JSON can hold.

    Returns:
        A block, or None if all three are None.
    """
    directories = read_directories(block or b"")
    if dpi is not None:
        set_resolution(directories[MAIN], dpi)
    if settings is not None:
        inner = directories.setdefault(IFD.Exif, Directory(group=IFD.Exif))
        set_field(inner, IMAGE_HISTORY, ASCII, json.dumps(settings).encode("ascii"))
    return write_block(directories) if any(directories.values()) else None


def settings_in_exif(block: bytes) -> dict[str, Any] | None:
    """Read back the settings that were written into an EXIF block, or into a TIFF file of bands.

    TIFF/EP has the field in the main directory, and files of bands have no other.

    Args:
        block: EXIF of a file, or a whole TIFF file.

    Returns:
        None if there are none.
    """
    directories = read_directories(block)
    for group in (IFD.Exif, MAIN):
        text = directories.get(group, {}).get(IMAGE_HISTORY)
        if isinstance(text, bytes) and (settings := parsed_settings(text)) is not None:
            return settings
    return None


def parsed_settings(text: bytes | str) -> dict[str, Any] | None:
    """Parse a JSON object; None if the text is anything else."""
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def _own_description(block: bytes, at: int | None, main: Directory) -> Any:
    """The image description that does not state the layout; tifffile writes its own beside it."""
    texts = texts_of(block, Base.ImageDescription, at)
    choices = texts if len(texts) > 1 else [main[Base.ImageDescription]]
    return next((text for text in choices if not _describes_layout(text)), None)


def _describes_layout(description: object) -> bool:
    """Whether an image description states the layout of its file, as scientific programs do."""
    if not isinstance(description, bytes):
        return False
    text = description.lstrip(b"\xef\xbb\xbf \t\r\n").rstrip(b"\0")
    if text.startswith(b"{"):  # by tifffile
        return "shape" in (parsed_settings(text) or {})
    is_layout = any(name in text[:4096].lower() for name in XML_OF_LAYOUT)
    return (text.startswith(b"<") and is_layout) or text.startswith(DESCRIPTIONS_OF_LAYOUT)


def _renewed(directories: Directories, size: tuple[int, int], *, is_srgb_now: bool) -> bytes:
    inner = directories.get(IFD.Exif, Directory())
    for tag, length_px in zip((Base.ExifImageHeight, Base.ExifImageWidth), size, strict=True):
        if tag in inner:
            set_field(inner, tag, LONG, length_px)
    if is_srgb_now and Base.ColorSpace in inner:
        set_field(inner, Base.ColorSpace, SHORT, SRGB)
    interop = directories.get(IFD.Interop, Directory())
    if is_srgb_now and Base.InteropIndex in interop:
        set_field(interop, Base.InteropIndex, ASCII, R98)
    return write_block(directories)
