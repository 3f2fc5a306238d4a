"""XMP, comments and recorded settings of GIF files, which are blocks between the frames.

libvips writes none of them. Settings are a comment that begins with `cascade `.
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


def add_to_gif(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a GIF; metadata and settings follow the palette at its start."""
    head = source.read(HEAD_BYTES)
    palette = source.read(3 << ((head[10] & 7) + 1)) if head[10] & 0x80 else b""
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
