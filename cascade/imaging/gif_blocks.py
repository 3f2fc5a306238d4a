"""The blocks of GIF files: whether they are all there, and XMP, comments and recorded settings.

libvips writes no metadata. Settings are a comment that begins with `cascade `.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any, BinaryIO

from cascade.imaging.extras import Extras
from cascade.imaging.metadata import COMMENT

HEAD_BYTES = 13  # signature, size and background
MARK = b"cascade {"  # begins the comment with settings; the brace is that of JSON
XMP_HEAD = b"\x21\xff\x0bXMP DataXMP"
XMP_TRAILER = b"\x01" + bytes(range(255, -1, -1)) + b"\0"  # ends the packet for any reader
COMMENT_HEAD = b"\x21\xfe"
EXTENSION, FRAME, END = 0x21, 0x2C, 0x3B  # first bytes of blocks
FRAME_FLAGS_AT, FRAME_BYTES = 8, 9  # behind the first byte of a frame


def is_whole_gif(data: bytes) -> bool:
    """Whether a GIF has the mark of its end. Bytes behind it, and between blocks, do not count."""
    at = HEAD_BYTES + _palette_bytes(data[10:11])
    while at < len(data):
        kind, at = data[at], at + 1
        if kind == END:
            return True
        if kind == EXTENSION:
            at = _behind_parts(data, at + 1)
        elif kind == FRAME:
            palette = _palette_bytes(data[at + FRAME_FLAGS_AT : at + FRAME_BYTES])
            at = _behind_parts(data, at + FRAME_BYTES + palette + 1)
    return False


def _palette_bytes(flags: bytes) -> int:
    """Length of the palette that the flags of a file or a frame state."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _behind_parts(data: bytes, at: int) -> int:
    """The offset behind the parts of a block, each of which begins with its length."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def add_to_gif(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a GIF; metadata and settings follow the palette at its start."""
    head = source.read(HEAD_BYTES)
    palette = source.read(_palette_bytes(head[10:11]))
    target.write(head + palette)
    if extras.settings is not None:
        target.write(_comment(b"cascade " + extras.settings.encode("ascii")))
    for text in extras.metadata.texts:
        if text.keyword == COMMENT:
            target.write(_comment(text.text.encode("utf-8")))
    if extras.metadata.xmp is not None:
        target.write(XMP_HEAD + extras.metadata.xmp + XMP_TRAILER)
    shutil.copyfileobj(source, target)


def settings_in_gif(info: Mapping[Any, Any]) -> str | None:
    """The recorded settings in what Pillow found out about a GIF; None if there are none."""
    for line in _comment_lines(info):
        if line.startswith(MARK):
            return line[len(MARK) - 1 :].decode("ascii", "replace")
    return None


def own_comment(info: Mapping[Any, Any]) -> bytes | None:
    """The comments of a GIF without recorded settings; None if there are none."""
    lines = [line for line in _comment_lines(info) if not line.startswith(MARK)]
    return b"\n".join(lines) or None


def _comment_lines(info: Mapping[Any, Any]) -> list[bytes]:
    """The lines of all comments, which Pillow joins by line breaks."""
    comment = info.get("comment", b"")
    return comment.split(b"\n") if isinstance(comment, bytes) else []


def _comment(text: bytes) -> bytes:
    parts = [text[at : at + 255] for at in range(0, len(text), 255)]
    return COMMENT_HEAD + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
