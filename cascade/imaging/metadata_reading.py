"""From the bytes of an image file to its metadata, whatever decodes the pixels.

PNG, JPEG, WebP, TIFF, AVIF and HEIC are read by modules of their own. Of other formats, Pillow and
its plug-ins read EXIF, XMP and comments; what they pass over in GIF and JPEG XL is read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from PIL import Image

from cascade.imaging import jpeg_segments, png_chunks, tiff_fields, webp_chunks
from cascade.imaging.exif_blocks import HEADER
from cascade.imaging.gif_blocks import own_comment
from cascade.imaging.heif_items import boxes, is_heif, read_heif
from cascade.imaging.metadata import Loss, Metadata, Text
from cascade.imaging.photoshop_resources import IPTC

GIF_HEADS = (b"GIF87a", b"GIF89a")
GIF_XMP = b"\x21\xff\x0bXMP DataXMP"
GIF_XMP_END = b"\x01\xff\xfe\xfd"
JXL_HEAD = b"\0\0\0\x0cJXL \r\n\x87\n"


def read_metadata(data: bytes, info: Mapping[Any, Any], at: int | None = None) -> Metadata:
    """Read the metadata of an image file.

    Args:
        data: the file's bytes.
        info: what Pillow found out about the file, for the formats that Pillow reads; may be empty
            for PNG, JPEG, WebP, TIFF, AVIF and HEIC.
        at: offset in bytes of the directory of a TIFF's page; None for the first one.
    """
    if data.startswith(png_chunks.HEAD):
        metadata = png_chunks.read_png(data)
    elif data.startswith(jpeg_segments.HEAD):
        metadata = jpeg_segments.read_jpeg(data)
    elif data.startswith(tiff_fields.HEADS):
        metadata = tiff_fields.read_tiff(data, at)
    elif webp_chunks.is_webp(data):
        metadata = webp_chunks.read_webp(data)
    elif is_heif(data):
        metadata = read_heif(data)
    else:
        metadata = metadata_of_info(info)
    if data.startswith(GIF_HEADS):
        metadata = metadata_of_info({"comment": own_comment(info)})
        metadata = replace(metadata, xmp=_xmp_of_gif(data))
    if data.startswith(JXL_HEAD):
        metadata = _with_xmp_of_jpeg_xl(metadata, data)
    return replace(metadata, xmp=_in_utf8(metadata.xmp))


def xmp_of_tiff(file: BinaryIO) -> bytes | None:
    """The XMP packet of a TIFF file's first page in UTF-8, as `read_metadata` reads it."""
    return _in_utf8(tiff_fields.fields_as_bytes(file).get(tiff_fields.XMP))


def metadata_of_pil(image: Image.Image) -> Metadata:
    """The metadata that a loaded PIL image holds in its attributes."""
    try:
        block = image.info.get("exif") or image.getexif().tobytes()
    except Exception:  # Pillow raises many kinds on damaged blocks
        block = b""
    known = (png_chunks.XMP_KEYWORD, png_chunks.SETTINGS_KEYWORD)
    metadata = metadata_of_info(image.info)
    texts = tuple(
        Text(keyword=keyword, text=str(text))
        for keyword, text in getattr(image, "text", {}).items()
        if keyword not in known and not keyword.startswith("Raw profile type ")
    )
    return replace(metadata, exif=block.removeprefix(HEADER) or None, texts=metadata.texts + texts)


def metadata_of_info(info: Mapping[Any, Any]) -> Metadata:
    """The metadata in the dictionary `info` of a PIL image."""
    exif, xmp, comment = (info.get(name) for name in ("exif", "xmp", "comment"))
    xmp = xmp.encode("utf-8") if isinstance(xmp, str) else xmp
    comment = comment.encode("utf-8") if isinstance(comment, str) else comment
    resources = info.get("photoshop")
    iptc = resources.get(IPTC) if isinstance(resources, dict) else None
    return Metadata(
        exif=exif.removeprefix(HEADER) if isinstance(exif, bytes) and exif else None,
        xmp=_in_utf8(xmp) if isinstance(xmp, bytes) and xmp else None,
        iptc=iptc if isinstance(iptc, bytes) and iptc else None,
        texts=(jpeg_segments.comment(comment),) if isinstance(comment, bytes) and comment else (),
    )


def _in_utf8(xmp: bytes | None) -> bytes | None:
    """An XMP packet in UTF-8, in which nearly all are stored; without padding behind its end."""
    if xmp is not None and (xmp[:2] in (b"\xff\xfe", b"\xfe\xff")):
        xmp = xmp.decode("utf-16", "replace").encode("utf-8")
    return xmp and (xmp.rstrip(b"\0") or None)


def _xmp_of_gif(data: bytes) -> bytes | None:
    start = data.find(GIF_XMP)
    end = data.find(GIF_XMP_END, start)
    return data[start + len(GIF_XMP) : end] if 0 <= start < end else None


def _with_xmp_of_jpeg_xl(metadata: Metadata, data: bytes) -> Metadata:
    for name, body in boxes(data):
        if name == b"xml ":
            return replace(metadata, xmp=body)
        if name == b"brob" and body[:4] == b"xml ":
            lost = Loss("XMP", "it is compressed by Brotli")
            return replace(metadata, losses=(*metadata.losses, lost))
    return metadata
