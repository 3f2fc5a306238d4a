"""Counts the files in folders that are not worked on, by kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cascade.bulk.progress import Note
from cascade.imaging.other_files import HIDDEN_FOLDER, counts_text, kind_of, kinds_text, noun_of

OWN_PREFIX = ".cascade-"  # the ledger and the locks in a folder of results
FILES = "file that is not an image", "files that are not images"


@dataclass
class LeftOut:
    """Files and folders of the inputs that are not worked on.

    Attributes:
        kinds: the kind of each path, see `cascade.imaging.other_files`.
    """

    kinds: dict[Path, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.kinds)

    def add_file(self, path: Path) -> None:
        """Count a file that is hidden or does not have the suffix of a picture."""
        if not path.name.startswith(OWN_PREFIX):
            self.kinds[path] = kind_of(path.name)

    def add_mask(self, path: Path) -> None:
        """Count the mask of the pictures, which lies among them."""
        self.kinds[path] = "mask"

    def add_hidden_folder(self, path: Path) -> None:
        """Count a hidden folder, whose files are not looked at."""
        if not path.name.startswith(OWN_PREFIX):
            self.kinds[path] = HIDDEN_FOLDER

    def counts(self) -> str:
        """The number of each kind, such as `7 .txt, 3 .xmp, 2 hidden`."""
        return kinds_text(Counter(self.kinds.values()))

    def note(self) -> Note:
        """The counts in one line, and a line for each path."""
        lines = [f"left out: {path} ({noun_of(kind)})" for path, kind in sorted(self.kinds.items())]
        counts = counts_text(Counter(self.kinds.values()), FILES)
        return Note(f"left out: {counts}; --verbose lists them", lines)
