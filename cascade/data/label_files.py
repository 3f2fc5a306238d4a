"""Assigns files of labels, such as `a.json` and `a.txt`, to the images beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cascade.data.names import NameIndex, quoted
from cascade.data.notes import (
    LABELS_WITHOUT_IMAGE,
    OTHER_CASE,
    SHARED_LABELS,
    SourceFault,
)

LabelKey = tuple[str, str]  # key of an image, and suffix of the file of labels


class LabelFileFaults(NamedTuple):
    """What is wrong with the files of labels of a source.

    Attributes:
        faults: files of labels without an image, or with several.
        unrelated: files that only look like labels, because no image has labels of this suffix.
    """

    faults: list[SourceFault]
    unrelated: list[LabelKey]


def check_label_files(
    images: Iterable[tuple[str, str]], label_files: Mapping[LabelKey, str]
) -> LabelFileFaults:
    """Find the files of labels that do not belong to exactly one image.

    Args:
        images: path of each image within its source, and its key.
        label_files: name for messages of each file of labels, by key and suffix.
    """
    names: dict[str, list[str]] = {}  # of images, by key
    for name, key in images:
        names.setdefault(key, []).append(name)
    keys = NameIndex(names)
    files = NameIndex(name for group in names.values() for name in group)
    suffixes_in_use = {suffix for key, suffix in label_files if key in names}
    result = LabelFileFaults([], [])
    for (key, suffix), file in label_files.items():
        if key in names:
            if len(names[key]) > 1:
                result.faults.append(_shared(file, names[key]))
        elif (alike := keys.alike(key)) is not None:
            reason = (
                f"differs from the image {names[alike][0]!r} in upper and lower case; rename it."
            )
            result.faults.append(SourceFault(OTHER_CASE, file, reason))
        elif (image := files.same(key)) is not None:
            stem = image.rpartition("/")[2].rpartition(".")[0]
            reason = f"for the labels of {quoted(image)}, name it {stem}{suffix}."
            result.faults.append(SourceFault(LABELS_WITHOUT_IMAGE, file, reason))
        elif suffix in suffixes_in_use:
            result.faults.append(SourceFault(LABELS_WITHOUT_IMAGE, file, "has no image beside it."))
        else:
            result.unrelated.append((key, suffix))
    return result


def _shared(file: str, images: list[str]) -> SourceFault:
    reason = f"gives its labels to {len(images)} images: {', '.join(sorted(images))}."
    return SourceFault(SHARED_LABELS, file, reason, harmless=True)
