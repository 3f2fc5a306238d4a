"""The mark of a trained model in DICOM, in elements of the standard (PS3.3).

- Synthetic Data (C.12.1): whether "some or all of the content of this instance was made
  artificially rather than being a faithful representation of acquired data".
- Contributing Equipment Sequence (C.12.1): tool, model and version, with the purpose *Synthesizing
  Equipment* (CID 7005), which the note on Synthetic Data names.
- Derivation Description (C.7.6.1): the mark in one line, after what stood there.
- Derivation Algorithm Sequence with the Algorithm Identification macro (10.16): family *Artificial
  Intelligence*, name, version, and as the parameters the whole record. The standard has it for CT
  and for pictures of the eye; elsewhere it is an extension (PS3.2, Standard Extended SOP Class).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cascade.errors import OutputError
from cascade.imaging.marks import NAME, NEWSCODES, TYPES, VERSION
from cascade.imaging.rasters.file_mark import FileMark, ReadMark, is_words, read_text
from cascade.imaging.rasters.packages import imported

EQUIPMENT, ALGORITHMS = "ContributingEquipmentSequence", "DerivationAlgorithmSequence"
PURPOSE = ("109100", "Synthesizing Equipment")
FAMILY = ("123110", "Artificial Intelligence")
LONG_STRING, SHORT_TEXT, LONG_TEXT = 64, 1024, 10240  # characters of LO, ST and LT (PS3.5, 6.2)


def mark_dicom(dataset: Any, mark: FileMark | None, name: str) -> None:
    """Add a mark to a data set, in the place of an earlier one of Cascade.

    Args:
        dataset: `pydicom.Dataset`.
        mark: the mark; None takes the earlier one out.
        name: the file's name, for error messages.

    Raises:
        OutputError: if the record is longer than DICOM allows.
    """
    _unmark(dataset)
    if mark is None:
        return
    if len(mark.text) > LONG_TEXT:
        raise OutputError(
            f"cannot write {name}: its record has {len(mark.text):,} characters, and DICOM holds "
            f"{LONG_TEXT:,}; leave the metadata out."
        )
    equipment = _made("ContributingEquipment", name, mark)
    algorithm = _made("DerivationAlgorithm", name, mark)
    for sequence, item in ((EQUIPMENT, equipment), (ALGORITHMS, algorithm)):
        _put(dataset, sequence, [*_items(dataset, sequence), item])
    dataset.SyntheticData = "YES"
    words = "; ".join([*_sentences(dataset), mark.words])
    if len(words) <= SHORT_TEXT:  # what stood there goes first, and the sequences say the same
        dataset.DerivationDescription = words


def read_dicom_mark(dataset: Any) -> ReadMark:
    """Read the mark of a data set."""
    for item in _items(dataset, ALGORITHMS):
        if _is_ours(item):
            return read_text(str(item.get("AlgorithmParameters", "")))
    return ReadMark({}, {})


def _unmark(dataset: Any) -> None:
    """Take out an earlier mark of Cascade; what others wrote stays."""
    for sequence in (EQUIPMENT, ALGORITHMS):
        items = _items(dataset, sequence)
        others = [each for each in items if not _is_ours(each)]
        if len(others) < len(items):
            _put(dataset, sequence, others)
            dataset.pop("SyntheticData", None)
    sentences = list(_sentences(dataset))
    before = [each for each in sentences if not is_words(each)]
    if len(before) < len(sentences):
        _put(dataset, "DerivationDescription", "; ".join(before))


def _put(dataset: Any, keyword: str, value: Any) -> None:
    """Put a value in the place of another one; an empty one takes its element out."""
    dataset.pop(keyword, None)  # whose type may be wrong
    if value:
        setattr(dataset, keyword, value)


def _made(kind: str, name: str, mark: FileMark) -> Any:
    """An item of the sequence of a kind."""
    item = imported("pydicom", "DICOM", name).Dataset()
    version = _word(mark.values[VERSION])
    model = _word(mark.settings.get("model") or NAME)
    if kind == "ContributingEquipment":
        item.PurposeOfReferenceCodeSequence = [_code(PURPOSE, name)]
        item.Manufacturer, item.ManufacturerModelName = NAME, model
        item.SoftwareVersions = version
        item.ContributionDescription = NEWSCODES + TYPES[mark.source]
    else:
        item.AlgorithmFamilyCodeSequence = [_code(FAMILY, name)]
        item.AlgorithmName, item.AlgorithmVersion, item.AlgorithmSource = model, version, NAME
        item.AlgorithmParameters = mark.text
    return item


def _word(text: str) -> str:
    """A text as LO holds it: in ASCII, short, without the backslash that separates values."""
    return text.encode("ascii", "replace").decode().replace("\\", "/")[:LONG_STRING]


def _code(code: tuple[str, str], name: str) -> Any:
    item = imported("pydicom", "DICOM", name).Dataset()
    item.CodeValue, item.CodeMeaning = code
    item.CodingSchemeDesignator = "DCM"
    return item


def _items(dataset: Any, sequence: str) -> list[Any]:
    """The items of a sequence; none where a file holds something else in its place."""
    if sequence not in dataset or dataset[sequence].VR != "SQ":
        return []
    return list(dataset[sequence].value)


def _is_ours(item: Any) -> bool:
    described = str(item.get("ContributionDescription", "")).startswith(NEWSCODES)
    return item.get("AlgorithmSource") == NAME or (item.get("Manufacturer") == NAME and described)


def _sentences(dataset: Any) -> Iterator[str]:
    """The parts of the Derivation Description."""
    for part in str(dataset.get("DerivationDescription") or "").split("; "):
        if part.strip():
            yield part
