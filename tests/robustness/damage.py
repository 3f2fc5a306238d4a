"""Strategies that damage what is in order: bytes, values of a tree, words of a command."""

from __future__ import annotations

import copy
import struct
import zlib
from typing import Any

from hypothesis import strategies as st

NUMBERS = [0, -1, 1, 2, 3, 7, 1.5, -0.5, 1e-300, 1e300, 10**30, 2**31, 2**63, -(2**63)]
NUMBERS += [float("nan"), float("inf"), float("-inf")]
TEXTS = ["", " ", "null", "~", "1e-4", "0x10", "nan", "${x}", "${data.path}", "../..", "/dev/null"]
TEXTS += ["\x00", "\ud800", "é\u0301", "\u202e", "a\nb", "%s", "{0}", "-1", "true", "x" * 300]
WORDS = st.one_of(st.sampled_from(TEXTS), st.text(max_size=12))
SCALARS = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), WORDS)
NUMERALS = st.one_of(st.sampled_from(NUMBERS), st.integers(-3, 130), st.floats(-2, 2))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=4,
)


@st.composite
def damaged_bytes(draw: Any, data: bytes) -> bytes:
    """Some bytes with up to four faults: changed, added, lost, repeated, cut off."""
    evenly = draw(st.randoms(use_true_random=True))  # integers would mostly hit the head
    for _ in range(draw(st.integers(1, 4))):
        place = evenly.randrange(max(len(data), 1))
        match draw(st.sampled_from(["change", "add", "lose", "repeat", "cut"])):
            case "change":
                new = draw(st.binary(min_size=1, max_size=4))
                data = data[:place] + new + data[place + len(new) :]
            case "add":
                data = data[:place] + draw(st.binary(min_size=1, max_size=9)) + data[place:]
            case "lose":
                data = data[:place] + data[place + draw(st.integers(1, 40)) :]
            case "repeat":
                data = data[: place + draw(st.integers(1, 40))] + data[place:]
            case "cut":
                data = data[:place]
    return data


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have right checksums, so that what is wrong with them is looked at."""
    place, parts = 8, [data[:8]]
    while place + 12 <= len(data):
        (size,) = struct.unpack(">L", data[place : place + 4])
        body = data[place + 4 : place + 8 + size]
        parts += [data[place : place + 4], body, struct.pack(">L", zlib.crc32(body))]
        place += 12 + size
    return b"".join(parts)


@st.composite
def damaged_tree(draw: Any, tree: Any) -> Any:
    """Nested mappings and lists with up to three values replaced, lost, renamed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        if not places:
            return draw(VALUES)
        parent, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["near", "near", "replace", "lose", "rename", "add"])):
            case "near":
                parent[key] = draw(_near(parent[key]))
            case "replace":
                parent[key] = draw(VALUES)
            case "lose":
                del parent[key]
            case "rename" if isinstance(parent, dict):
                parent[draw(WORDS)] = parent.pop(key)
            case _ if isinstance(parent, dict):
                parent[draw(WORDS)] = draw(VALUES)
            case _:
                parent.append(draw(VALUES))
    return tree


def _near(value: Any) -> Any:
    """Values of the same kind, which a check of kinds lets through."""
    if isinstance(value, bool):
        return st.just(not value)
    if isinstance(value, (int, float)):
        return NUMERALS
    if isinstance(value, list):
        return st.lists(st.sampled_from(value) if value else NUMERALS, max_size=5)
    return WORDS if isinstance(value, str) else VALUES


def _places(tree: Any):
    """Every mapping or list within a tree, with each of its keys."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(entries):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _places(value)
