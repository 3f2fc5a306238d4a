"""FileMark: what a file of bands says about the trained model that made it, for each format.

| format | place of the mark | place of the record |
|---|---|---|
| TIFF | XMP (tag 700) | ImageHistory (tag 37395), as in colour pictures |
| DICOM | `dicom_mark.py` | the same |
| NIfTI | a comment in a header extension, and `descrip` if it is free | the same comment |
| `.npz` | the array `cascade`, a text | the same |
| PNG | as in colour pictures | as in colour pictures |

`.npy` holds one array and nothing else. DICOM, NIfTI and `.npz` hold both as one text, `text`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from cascade.imaging.kept_exif import parsed_settings
from cascade.imaging.marks import (
    NAME,
    NEWSCODES,
    SOURCE_TYPE,
    SYSTEM,
    TYPES,
    VERSION,
    Source,
    mark_values,
    with_mark,
)
from cascade.imaging.writing import RECORD


@final
@dataclass(frozen=True, kw_only=True)
class FileMark:
    """How a file of bands came about.

    Attributes:
        source: "generated" for what was drawn from noise, and for what was restored from that;
            "restored" for what was made from measured numbers.
        settings: how it was made; anything that JSON can hold.
    """

    source: Source
    settings: Mapping[str, Any]

    @classmethod
    def of_result(cls, settings: Mapping[str, Any], *, is_generated: bool) -> FileMark:
        """The mark of a restored file.

        Args:
            settings: how it was made.
            is_generated: whether a model had drawn its input from noise.
        """
        return cls(source="generated" if is_generated else "restored", settings=settings)

    @property
    def packet(self) -> bytes:
        """The mark as an XMP packet."""
        return with_mark(None, self.source, self.settings)

    @property
    def record(self) -> str:
        """The settings as JSON in ASCII."""
        return json.dumps(self.settings)

    @property
    def values(self) -> dict[str, str]:
        """The IPTC's properties of the mark by their names."""
        return mark_values(self.source, self.settings)

    @property
    def text(self) -> str:
        """Mark and settings as one JSON object in ASCII, for formats without XMP."""
        return json.dumps({**self.values, RECORD: self.settings})

    @property
    def words(self) -> str:
        """The mark in one line of ASCII: how it came about, then system and version."""
        values = self.values
        words = f"{TYPES[self.source]}: {values[SYSTEM]} {values[VERSION]}".strip()
        return words.encode("ascii", "replace").decode()


@final
@dataclass(frozen=True)
class ReadMark:
    """What was read of a mark; both are empty if there is none.

    Attributes:
        mark: the IPTC's source type, without the address of its list, system and version.
        record: the settings.
    """

    mark: Mapping[str, str]
    record: Mapping[str, Any]

    @property
    def is_generated(self) -> bool:
        """Whether a model drew the file from noise."""
        return self.mark.get(SOURCE_TYPE) == TYPES["generated"]


def is_words(line: str) -> bool:
    """Whether a line is the words of a mark."""
    return line.startswith(tuple(f"{each}: {NAME}" for each in TYPES.values()))


def read_text(text: str | bytes) -> ReadMark:
    """Read a text that `FileMark.text` made; any other text holds no mark."""
    values = parsed_settings(text) or {}
    record = values.get(RECORD)
    if not isinstance(record, dict):
        return ReadMark({}, {})
    names = [name for name in (SOURCE_TYPE, SYSTEM, VERSION) if isinstance(values.get(name), str)]
    return ReadMark({name: values[name].removeprefix(NEWSCODES) for name in names}, record)
