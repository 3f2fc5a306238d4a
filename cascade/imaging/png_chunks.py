"""The metadata of PNG files: read from their chunks, and added to files that libvips wrote.

XMP and texts are text chunks. IPTC has no chunk of its own: as other programs do, it is stored in
hexadecimal in a text named "Raw profile type iptc".
"""

from __future__ import annotations

import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from cascade.imaging.extras import Extras
from cascade.imaging.metadata import Loss, Metadata, Text
from cascade.imaging.photoshop_resources import (
    IPTC,
    metadata_of_resources,
    write_resources,
)

HEAD = b"\x89PNG\r\n\x1a\n"
INCH_PER_M = 1 / 0.0254
XMP_KEYWORD = "XML:com.adobe.xmp"
SETTINGS_KEYWORD = "cascade"
IPTC_KEYWORDS = ("Raw profile type iptc", "Raw profile type 8bim")
RAW_PROFILE = re.compile(r"\s*\S[^\n]*\n\s*\d+\n([\s0-9a-fA-F]*)")
LENGTHS = {b"gAMA": 4, b"cHRM": 32, b"cICP": 4, b"sRGB": 1, b"mDCV": 24, b"cLLI": 8}  # in bytes
COLOUR_CHUNKS = tuple(LENGTHS)
LENGTHS |= {b"pHYs": 9, b"tIME": 7}
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
ANIMATION_AND_TRANSPARENCY = (b"acTL", b"fcTL", b"tRNS")
MAX_KEYWORD_BYTES = 79
MAX_PLAIN_TEXT_BYTES = 2**20  # of a text or profile, decompressed: the limit of Pillow
MAX_TEXT_BYTES = 2**24  # of one text, decompressed
MAX_ALL_TEXT_BYTES = 2**26
COMPRESSED_FROM_BYTES = 1024  # shorter texts are stored as they are


# ---- reading ------------------------------------------------------------------------------------


def read_png(data: bytes) -> Metadata:
    """Read the metadata of a PNG file; damaged chunks are left out."""
    exif, xmp, profiles, losses = None, None, [], []
    texts, colour_chunks = [], {}
    left_bytes = MAX_ALL_TEXT_BYTES
    for _, _, name, body in _chunks(data):
        if body is None or (name not in TEXTS and _is_faulty(name, body)):
            losses.append(_loss_of(name))
        elif name == b"eXIf":
            exif = body
        elif name in COLOUR_CHUNKS:
            colour_chunks.setdefault(name, body)
        elif name == b"caBX":
            losses.append(Loss("content credentials", "they are signed for the old pixels"))
        elif name in TEXTS:
            text = _text(name, body, min(MAX_TEXT_BYTES, left_bytes))
            left_bytes -= 0 if text is None else len(text.text)
            if text is None:
                losses.append(_loss_of(name))
            elif text.keyword == XMP_KEYWORD:
                xmp = text.text.encode("utf-8")
            elif text.keyword in IPTC_KEYWORDS:
                profiles.append(text.text)
            elif text.keyword == "Raw profile type xmp":
                xmp = xmp or _raw_profile(text.text)
            elif text.keyword in ("Raw profile type exif", "Raw profile type APP1"):
                exif = exif or _raw_profile(text.text)
            elif text.keyword != SETTINGS_KEYWORD:
                texts.append(text)
    metadata = _iptc_metadata(profiles)
    return replace(
        metadata,
        exif=exif,
        xmp=xmp,
        texts=tuple(texts),
        colour_chunks=tuple(colour_chunks.items()),
        losses=(*metadata.losses, *dict.fromkeys(filter(None, losses))),
    )


def without_faults(data: bytes) -> bytes:
    """A PNG without the faulty chunks that its pixels do not need.

    Decoders refuse the whole picture for a damaged or very long text or profile.

    Args:
        data: the PNG's bytes.
    """
    faults = [(start, end) for start, end, name, body in _chunks(data) if _is_faulty(name, body)]
    if not faults:
        return data
    starts, ends = [0, *(end for _, end in faults)], [*(start for start, _ in faults), len(data)]
    return b"".join(data[start:end] for start, end in zip(starts, ends, strict=True))


def _chunks(data: bytes) -> Iterator[tuple[int, int, bytes, bytes | None]]:
    """Start, end, name and body of the chunks except those of the pixels, up to one that is cut.

    The body is None if its checksum is wrong.
    """
    at = len(HEAD)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">L4s", data, at)
        end = at + 12 + length
        if end > len(data):
            return
        if name not in (b"IDAT", b"fdAT"):
            body = data[at + 8 : end - 4]
            (checksum,) = struct.unpack_from(">L", data, end - 4)
            yield at, end, name, body if zlib.crc32(name + body) == checksum else None
        at = end


def _is_faulty(name: bytes, body: bytes | None) -> bool:
    """Whether decoders stumble over a chunk that the pixels do not need.

    Args:
        name: four letters that name the chunk.
        body: None if its checksum is wrong.
    """
    if name[:1].isupper() or name in ANIMATION_AND_TRANSPARENCY:
        return False
    if body is None or len(body) != LENGTHS.get(name, len(body)):
        return True
    if name == b"iCCP":
        return not _profile(body)
    return name in TEXTS and _text(name, body, MAX_PLAIN_TEXT_BYTES) is None


def _profile(body: bytes) -> bytes | None:
    """The ICC profile in a chunk; None if it is damaged or too long."""
    _, _, rest = body.partition(b"\0")
    return _decompressed(rest[1:], MAX_PLAIN_TEXT_BYTES) if rest[:1] == b"\0" else None


def _loss_of(name: bytes) -> Loss | None:
    """What is lost with a faulty chunk."""
    if name == b"iCCP":
        return Loss("colour profile", "it is damaged or too long", is_colour=True)
    if name in COLOUR_CHUNKS:
        return Loss(f"PNG colour chunk {name.decode()}", "it is damaged", is_colour=True)
    if name in TEXTS:
        return Loss("PNG texts", "they are damaged or too long")
    return Loss("EXIF", "it is damaged") if name == b"eXIf" else None


def _text(name: bytes, body: bytes, max_bytes: int) -> Text | None:
    """Read the body of a text chunk; None if it is damaged or too long."""
    keyword, _, rest = body.partition(b"\0")
    if not 1 <= len(keyword) <= MAX_KEYWORD_BYTES:
        return None
    key = keyword.decode("latin-1")
    if name == b"tEXt":
        return Text(keyword=key, text=rest.decode("latin-1")) if len(rest) <= max_bytes else None
    if name == b"zTXt":
        value = _decompressed(rest[1:], max_bytes) if rest[:1] == b"\0" else None
        return None if value is None else Text(keyword=key, text=value.decode("latin-1"))
    is_compressed, method, rest = rest[:1] == b"\1", rest[1:2], rest[2:]
    language, _, rest = rest.partition(b"\0")
    translated, _, value = rest.partition(b"\0")
    if method != b"\0":
        return None
    value = _decompressed(value, max_bytes) if is_compressed else value
    if value is None or len(value) > max_bytes:
        return None
    return Text(
        keyword=key,
        text=value.decode("utf-8", "replace"),
        language=language.decode("ascii", "replace"),
        translated=translated.decode("utf-8", "replace"),
    )


def _decompressed(data: bytes, max_bytes: int) -> bytes | None:
    """Decompress zlib data; None if it is damaged or grows beyond the limit."""
    decompressor = zlib.decompressobj()
    try:
        value = decompressor.decompress(data, max_bytes + 1)
    except zlib.error:
        return None
    return value if len(value) <= max_bytes and decompressor.eof else None


def _raw_profile(text: str) -> bytes | None:
    """The bytes of a "Raw profile", which ImageMagick invented; None if it is damaged."""
    match = RAW_PROFILE.fullmatch(text.rstrip("\0"))
    try:
        return bytes.fromhex("".join(match[1].split())) if match else None
    except ValueError:
        return None


def _iptc_metadata(profiles: list[str]) -> Metadata:
    for text in profiles:
        profile = _raw_profile(text)
        if profile is None:
            return Metadata(losses=(Loss("IPTC", "it is damaged"),))
        if profile.startswith(b"\x1c"):
            return Metadata(iptc=profile)
        metadata = metadata_of_resources(profile.removeprefix(b"Photoshop 3.0\0"))
        if metadata != Metadata():
            return metadata
    return Metadata()


# ---- writing ------------------------------------------------------------------------------------


def add_to_png(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a PNG; profile and metadata follow the header, instead of the source's resolution."""
    target.write(source.read(8 + 25))  # signature and IHDR
    target.write(png_extras(extras))
    while True:
        head = source.read(8)
        length, name = struct.unpack(">L4s", head)
        if name == b"IDAT":
            break
        chunk = source.read(length + 4)
        if name != b"pHYs":
            target.write(head + chunk)
    target.write(head)
    shutil.copyfileobj(source, target)


def png_extras(extras: Extras) -> bytes:
    """The chunks for what is added to a PNG; they follow its header."""
    metadata = extras.metadata
    parts = [chunk(*each) for each in metadata.colour_chunks]
    if extras.profile is not None:
        parts.append(chunk(b"iCCP", b"icc\0\0" + zlib.compress(extras.profile)))
    if extras.dpi is not None:
        px_per_m = [round(value * INCH_PER_M) for value in extras.dpi]
        parts.append(chunk(b"pHYs", struct.pack(">LLB", *px_per_m, 1)))
    if extras.exif is not None:
        parts.append(chunk(b"eXIf", extras.exif))
    if metadata.xmp is not None:
        parts.append(chunk(b"iTXt", XMP_KEYWORD.encode() + bytes(5) + metadata.xmp))
    texts = [] if extras.settings is None else [Text(keyword="cascade", text=extras.settings)]
    parts += [_text_chunk(text) for text in [*texts, *metadata.texts, *_iptc_texts(metadata)]]
    return b"".join(parts)


def _iptc_texts(metadata: Metadata) -> list[Text]:
    profile = metadata.iptc
    if metadata.photoshop:
        own = [] if profile is None else [(IPTC, profile)]
        profile = write_resources([*own, *metadata.photoshop])
    if profile is None:
        return []
    digits = profile.hex()
    lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
    text = "\n".join(["", "iptc", f"{len(profile):8}", *lines, ""])
    return [Text(keyword=IPTC_KEYWORDS[0], text=text)]


def _text_chunk(text: Text) -> bytes:
    """The smallest kind of chunk that holds a text: Latin-1 if possible, else UTF-8."""
    keyword = text.keyword.encode("latin-1") + b"\0"
    value = text.text.encode("utf-8")
    is_latin = not (text.language or text.translated) and all(ord(each) < 256 for each in text.text)
    if is_latin:
        value = text.text.encode("latin-1")
    is_long = len(value) >= COMPRESSED_FROM_BYTES
    stored = zlib.compress(value) if is_long else value
    if is_latin and is_long:
        return chunk(b"zTXt", keyword + b"\0" + stored)
    if is_latin:
        return chunk(b"tEXt", keyword + value)
    names = [text.language.encode("ascii", "ignore"), text.translated.encode("utf-8"), stored]
    return chunk(b"iTXt", keyword + bytes([is_long, 0]) + b"\0".join(names))


def chunk(name: bytes, body: bytes) -> bytes:
    """A whole chunk, with its length and checksum."""
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))
