"""The mark of a trained model in NIfTI: an extension, and a line in `descrip` if that is free."""

from __future__ import annotations

from typing import Any

from cascade.imaging.rasters.file_mark import FileMark, ReadMark, is_words, read_text
from cascade.imaging.rasters.packages import imported

COMMENT = 6  # code of an extension that holds plain text
DESCRIPTION_BYTES = 79  # of `descrip`, whose last byte stays zero


def mark_nifti(header: Any, mark: FileMark | None, name: str) -> None:
    """Add a mark to a header, in the place of an earlier one of Cascade.

    Args:
        header: of a nibabel image.
        mark: the mark; None takes the earlier one out.
        name: the file's name, for error messages.
    """
    nifti = imported("nibabel.nifti1", "NIfTI", name)
    others = [each for each in header.extensions if not read_text(_content(each)).record]
    header.extensions[:] = others
    if is_words(header["descrip"].item().decode("ascii", "replace")):
        header["descrip"] = b""
    if mark is None:
        return
    header.extensions.append(nifti.Nifti1Extension(COMMENT, mark.text.encode("ascii")))
    if not header["descrip"].item():  # else it is a note of another program
        header["descrip"] = mark.words.encode("ascii")[:DESCRIPTION_BYTES]


def read_nifti_mark(header: Any) -> ReadMark:
    """Read the mark in a header of nibabel."""
    marks = (read_text(_content(each)) for each in header.extensions)
    return next((each for each in marks if each.record), ReadMark({}, {}))


def _content(extension: Any) -> str:
    """The text of an extension; empty if it is another kind, or no text."""
    if extension.get_code() != COMMENT:
        return ""
    content = extension.get_content()
    text = content if isinstance(content, bytes) else str(content).encode()
    return text.rstrip(b"\0").decode("utf-8", "replace")
