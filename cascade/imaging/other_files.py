"""Files beside pictures: what they are, and how many of each kind in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from cascade.reporting.words import counted

HIDDEN = "hidden"
HIDDEN_FOLDER = "hidden folder"
WITHOUT_SUFFIX = "without suffix"
NOT_REGULAR = "not a regular file"
NOUNS = {
    "raw camera file": ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef "
    ".nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f",
    "video": ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv",
    "archive": ".7z .bz2 .gz .rar .tar .tgz .xz .zip .zst",
}
NOUN_OF_SUFFIX = {suffix: noun for noun, suffixes in NOUNS.items() for suffix in suffixes.split()}
MAX_KINDS = 8  # in the line


def kind_of(name: str) -> str:
    """The kind of a file that is not a picture: hidden, its suffix in small letters, or none."""
    if name.startswith("."):
        return HIDDEN
    return PurePath(name).suffix.lower() or WITHOUT_SUFFIX


def noun_of(kind: str) -> str:
    """What files of a kind are, such as `raw camera file`; the kind itself if that is not known."""
    return NOUN_OF_SUFFIX.get(kind, kind)


def kinds_text(counts: Mapping[str, int]) -> str:
    """The number of each kind, the largest first, such as `7 .txt, 1 .nef raw camera file`."""
    kinds = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [_counted_kind(number, kind) for kind, number in kinds[:MAX_KINDS]]
    rest = sum(number for _, number in kinds[MAX_KINDS:])
    return ", ".join([*parts, *([f"{rest:,} of other kinds"] if rest else [])])


def counts_text(counts: Mapping[str, int], files: tuple[str, str]) -> str:
    """Count files and hidden folders, such as `9 files (7 .txt, 2 hidden) and 1 hidden folder`.

    Args:
        counts: number of files of each kind.
        files: words for one file and for several.
    """
    of_files = {kind: number for kind, number in counts.items() if kind != HIDDEN_FOLDER}
    parts = []
    if of_files:
        parts.append(f"{counted(sum(of_files.values()), *files)} ({kinds_text(of_files)})")
    if HIDDEN_FOLDER in counts:
        parts.append(counted(counts[HIDDEN_FOLDER], HIDDEN_FOLDER))
    return " and ".join(parts)


def _counted_kind(number: int, kind: str) -> str:
    if kind == HIDDEN_FOLDER:
        return counted(number, kind)
    noun = NOUN_OF_SUFFIX.get(kind)
    return f"{number:,} {kind}" if noun is None else counted(number, f"{kind} {noun}")
