"""End a JPEG whose end is missing, so that decoders take it as far as it goes."""

from __future__ import annotations

import re
import struct

END = b"\xff\xd9"
# in a scan, 0xFF is a marker unless a zero or a restart number follows, or another 0xFF
MARKER = re.compile(b"\xff[^\x00\xd0-\xd7\xff]")


def ended_jpeg(data: bytes) -> bytes:
    """Cut a JPEG after its last complete segment or in its last scan, and mark the end there.

    Args:
        data: a JPEG of one or several scans, cut off anywhere.
    """
    at = len(END)  # behind the start of the image
    while marker := MARKER.search(data, at):
        at = marker.start()
        (length,) = struct.unpack(">H", data[at + 2 : at + 4].rjust(2, b"\xff"))
        if at + 2 + length > len(data):
            return data[:at] + END
        at += 2 + length
    return data + END
