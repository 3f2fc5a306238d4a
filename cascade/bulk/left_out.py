"""Counts the files in folders that are not worked on, by kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cascade.bulk.progress import Note, counted

KINDS = {
    "raw camera file": ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef "
    ".nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f",
    "video": ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv",
    "archive": ".7z .bz2 .gz .rar .tar .tgz .xz .zip .zst",
}
NOUN_OF_SUFFIX = {suffix: noun for noun, suffixes in KINDS.items() for suffix in suffixes.split()}
OWN_PREFIX = ".cascade-"  # the ledger and the locks in a folder of results
HIDDEN_FOLDER = "hidden folder"
MAX_KINDS = 8  # in the line


@dataclass
class LeftOut:
    """Files and folders of the inputs that are not worked on.

    Attributes:
        kinds: the kind of each path: `hidden`, `hidden folder`, `without suffix`, or its suffix.
    """

    kinds: dict[Path, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.kinds)

    def add_file(self, path: Path) -> None:
        """Count a file that is hidden or does not have the suffix of a picture."""
        if path.name.startswith(OWN_PREFIX):
            return
        hidden = path.name.startswith(".")
        self.kinds[path] = "hidden" if hidden else path.suffix.lower() or "without suffix"

    def add_hidden_folder(self, path: Path) -> None:
        """Count a hidden folder, whose files are not looked at."""
        if not path.name.startswith(OWN_PREFIX):
            self.kinds[path] = HIDDEN_FOLDER

    def counts(self) -> str:
        """The number of each kind, such as `7 .txt, 3 .xmp, 2 hidden`."""
        kinds = sorted(Counter(self.kinds.values()).items(), key=lambda item: (-item[1], item[0]))
        parts = [_counted(number, kind) for kind, number in kinds[:MAX_KINDS]]
        rest = sum(number for _, number in kinds[MAX_KINDS:])
        return ", ".join([*parts, *([f"{rest:,} of other kinds"] if rest else [])])

    def note(self) -> Note:
        """The counts in one line, and a line for each path."""
        lines = [f"left out: {path} ({_one(kind)})" for path, kind in sorted(self.kinds.items())]
        files = LeftOut({path: kind for path, kind in self.kinds.items() if kind != HIDDEN_FOLDER})
        parts = []
        if files:
            nouns = "file that is not a picture", "files that are not pictures"
            parts.append(f"{counted(len(files), *nouns)} ({files.counts()})")
        if len(files) < len(self):
            parts.append(counted(len(self) - len(files), HIDDEN_FOLDER))
        return Note(f"left out: {' and '.join(parts)}; --verbose lists them", lines)


def _counted(number: int, kind: str) -> str:
    if kind == HIDDEN_FOLDER:
        return counted(number, kind)
    noun = NOUN_OF_SUFFIX.get(kind)
    return f"{number:,} {kind}" if noun is None else counted(number, f"{kind} {noun}")


def _one(kind: str) -> str:
    noun = NOUN_OF_SUFFIX.get(kind)
    return kind if noun is None else noun
