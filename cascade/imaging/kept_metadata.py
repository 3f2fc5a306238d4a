"""Decides which metadata of a picture to keep, update or leave out.

| metadata | what happens to it |
|---|---|
| ICC profile | kept, if it is intact and for the picture's kind of colours |
| resolution (DPI) | kept as `Picture.dpi`, swapped if the picture is turned by 90 degrees |
| orientation | applied to the pixels; the field becomes 1 |
| pixel size in EXIF | becomes that of the upright picture |
| camera, lens, exposure, dates, place, author, copyright, comments, ratings | kept |
| all other fields of the Exif and GPS directories | kept in their own types |
| the maker's private notes | left out: their inner offsets break when they are moved |
| thumbnail, file layout | left out: they describe the old file |
| a damaged field | left out, with the fields after it in the same directory |
| XMP, IPTC, gamma chunks | left out |

Settings of this program are recorded as JSON in the Exif field ImageHistory (0x9213, "what has been
done to the image", TIFF/EP), where they do not replace anybody's comment. PNG files hold them in a
text chunk instead (`cascade/imaging/picture_writing.py`).

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
    write_block,
)
from cascade.imaging.resolution import set_resolution

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
}


def kept_exif(block: bytes, size: tuple[int, int]) -> bytes | None:
    """Reduce an EXIF block to what a picture keeps of it.

    Args:
        block: EXIF of a file, or a whole TIFF file.
        size: (H, W) of the upright picture in pixels.

    Returns:
        A block, or None if the file has no EXIF that is kept.
    """
    directories = read_directories(block)
    for tag in directories[MAIN].keys() - KEPT_TAGS:
        del directories[MAIN][tag]
    directories.get(IFD.Exif, {}).pop(Base.MakerNote, None)
    if not any(directories.values()):
        return None
    _set(directories[MAIN], Base.Orientation, SHORT, 1)
    return _resized(directories, size)


def resized_exif(block: bytes, size: tuple[int, int]) -> bytes:
    """Bring the pixel size in an EXIF block up to date, if the block has one.

    Args:
        block: EXIF block that `kept_exif` returned.
        size: (H, W) of the picture in pixels.
    """
    return _resized(read_directories(block), size)


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
        _set(inner, Base.ImageHistory, ASCII, json.dumps(settings).encode("ascii"))
    return write_block(directories) if any(directories.values()) else None


def settings_in_exif(block: bytes) -> dict[str, Any] | None:
    """Read back the settings that were written into an EXIF block.

    Args:
        block: EXIF of a file, or a whole TIFF file.

    Returns:
        None if there are none.
    """
    text = read_directories(block).get(IFD.Exif, {}).get(Base.ImageHistory)
    return parsed_settings(text) if isinstance(text, bytes) else None


def parsed_settings(text: bytes | str) -> dict[str, Any] | None:
    """Parse a JSON object; None if the text is anything else."""
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def _resized(directories: Directories, size: tuple[int, int]) -> bytes:
    inner = directories.get(IFD.Exif, Directory())
    for tag, length_px in zip((Base.ExifImageHeight, Base.ExifImageWidth), size, strict=True):
        if tag in inner:
            _set(inner, tag, LONG, length_px)
    return write_block(directories)


def _set(directory: Directory, tag: int, field_type: int, value: int | bytes) -> None:
    directory.tagtype[tag] = field_type
    directory[tag] = value
