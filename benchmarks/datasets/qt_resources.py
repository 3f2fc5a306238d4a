"""Files inside a Qt resource file (`.rcc`), after Qt's own reader (`qresource.cpp`).

A header `qres` is followed by the format's version and the offsets of the tree, the data and the
names; all numbers are big-endian. A node of the tree is a folder with children, or a file with an
offset into the data, where a length stands before the bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from shards import DatasetError

HEADER = struct.Struct(">4s4I")
NODE_BYTES = {1: 14, 2: 22, 3: 22}  # by version; from the second on a date follows
ZLIB, FOLDER, ZSTD = 1, 2, 4
MAX_FILE_BYTES = 256 * 2**20
MAX_DEPTH = 64


def read_resources(data: bytes) -> Iterator[tuple[str, memoryview]]:
    """The path and contents of every file; what is compressed with zlib is unpacked.

    Raises:
        DatasetError: if the bytes are not such a file, or a part of it points outside.
    """
    try:
        magic, version, tree, body, names = HEADER.unpack_from(data)
        if magic != b"qres" or version not in NODE_BYTES:
            raise DatasetError("not a Qt resource file of version 1 to 3")
        yield from _walk(data, (tree, body, names), NODE_BYTES[version])
    except (struct.error, UnicodeDecodeError, zlib.error) as error:
        raise DatasetError(f"damaged Qt resource file: {error}") from error


def _walk(
    data: bytes, offsets: tuple[int, int, int], node_bytes: int
) -> Iterator[tuple[str, memoryview]]:
    tree, body, names = offsets
    nodes_left = len(data) // node_bytes  # a damaged tree may point at itself
    waiting = [(0, "")]
    while waiting:
        index, path = waiting.pop()
        at = tree + index * node_bytes
        name_at, flags = struct.unpack_from(">IH", data, at)
        if index:
            path = (
                f"{path}/{_name(data, names + name_at)}" if path else _name(data, names + name_at)
            )
        nodes_left -= 1
        if nodes_left < 0 or path.count("/") > MAX_DEPTH:
            raise DatasetError("damaged Qt resource file: its folders do not end")
        if flags & FOLDER:
            count, first = struct.unpack_from(">II", data, at + 6)
            waiting += [(first + child, path) for child in range(min(count, nodes_left + 1))]
        else:
            (start,) = struct.unpack_from(">I", data, at + 10)
            yield path, _contents(data, body + start, flags, path)


def _name(data: bytes, at: int) -> str:
    (length,) = struct.unpack_from(">H", data, at)  # in UTF-16 units; a hash follows
    return data[at + 6 : at + 6 + 2 * length].decode("utf-16-be")


def _contents(data: bytes, at: int, flags: int, path: str) -> memoryview:
    (length,) = struct.unpack_from(">I", data, at)
    contents = memoryview(data)[at + 4 : at + 4 + length]
    if len(contents) != length:
        raise DatasetError(f"damaged Qt resource file: {path} ends early")
    if flags & ZSTD:
        raise DatasetError(f"{path} is compressed with zstd, which is not read here")
    if flags & ZLIB:  # its first 4 bytes are the unpacked length
        return memoryview(zlib.decompressobj().decompress(contents[4:], MAX_FILE_BYTES))
    return contents
