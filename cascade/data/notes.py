"""What a source noticed besides its images: labels out of step, and files that are not images.

A source fills in `SourceNotes` while it lists its images, so reading them costs nothing. Commands
print `SourceNotes.lines`, and `check_share` stops when too many labels are out of step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cascade.data.broken import allowed_images, listed_by
from cascade.errors import DataError
from cascade.imaging.other_files import counts_text, noun_of
from cascade.reporting.words import counted

EXAMPLES = 3


class FaultKind(NamedTuple):
    """A kind of fault, as a noun for one and for several."""

    one: str
    many: str

    def counted(self, count: int) -> str:
        """The number of faults in words, such as `3 rows without an image`."""
        return counted(count, *self)


ROW_WITHOUT_IMAGE = FaultKind("row without an image", "rows without an image")
IMAGE_WITHOUT_ROW = FaultKind("image without a row", "images without a row")
IMAGE_WITHOUT_LABEL = FaultKind("image without a label", "images without a label")
CONTRADICTING_ROWS = FaultKind("image with contradicting rows", "images with contradicting rows")
REPEATED_ROW = FaultKind("repeated row", "repeated rows")
UNREADABLE_ROW = FaultKind("row that cannot be read", "rows that cannot be read")
OTHER_CASE = FaultKind("name that differs in case", "names that differ in case")
OTHER_SLASH = FaultKind("name with another kind of slash", "names with another kind of slash")
OTHER_UNICODE_FORM = FaultKind("name in another Unicode form", "names in another Unicode form")
LABELS_WITHOUT_IMAGE = FaultKind("label file without an image", "label files without an image")
SHARED_LABELS = FaultKind("label file of several images", "label files of several images")
UNREAD_TABLE = FaultKind("table that is not read", "tables that are not read")
DEAD_LINK = FaultKind("link that leads nowhere", "links that lead nowhere")
SECOND_LINK = FaultKind("link to an image of the folder", "links to images of the folder")
UNREADABLE_FOLDER = FaultKind("folder that cannot be read", "folders that cannot be read")
DOTTED_NAME = FaultKind(
    "image with a further dot in its name", "images with a further dot in their names"
)
NOT_SELECTED = FaultKind(
    "image that cannot be selected without its label",
    "images that cannot be selected without their labels",
)
NO_PARTNER = FaultKind("image without a partner", "images without a partner")
LONE_INPUT = FaultKind("input of no image", "inputs of no image")
NO_ROLE = FaultKind(
    "image that is neither NAME.low nor NAME.high", "images that are neither NAME.low nor NAME.high"
)
IMAGES = FaultKind("image", "images")
OTHER_FILE = FaultKind("file that is not an image", "files that are not images")
KINDS_WITHOUT_LABELS = {DEAD_LINK, SECOND_LINK, UNREADABLE_FOLDER, DOTTED_NAME}
KINDS_WITHOUT_LABELS |= {NO_PARTNER, LONE_INPUT, NO_ROLE}


@dataclass(frozen=True)
class SourceFault:
    """Something about one image, row or label file that the user should know.

    Attributes:
        kind: one of the constants of this module.
        name: the file, row or folder, for messages.
        reason: what is wrong, and what to do where that is not obvious.
        harmless: whether nothing is lost, so that it does not count as a broken image.
    """

    kind: FaultKind
    name: str
    reason: str
    harmless: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class SourceNotes:
    """What a source noticed while it listed its images.

    Attributes:
        faults: what is wrong with labels, names and links.
        other_files: paths of the files that are not images, by kind, see
            `cascade.imaging.other_files`. Files of labels that are read are not among them.
    """

    faults: tuple[SourceFault, ...] = ()
    other_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def harmful(self) -> list[SourceFault]:
        """The faults that count as broken images."""
        return [fault for fault in self.faults if not fault.harmless]

    @property
    def unread_tables(self) -> str:
        """Sentences on the tables that are not read, to follow an error; empty without any."""
        faults = [f" {fault}" for fault in self.faults if fault.kind == UNREAD_TABLE]
        return "".join(faults[:EXAMPLES])

    def without(self, reported: Iterable[str]) -> SourceNotes:
        """Leave out the faults that are printed elsewhere.

        Args:
            reported: lines `name: reason`, such as those of broken images.
        """
        lines = set(reported)
        return SourceNotes(tuple(f for f in self.faults if str(f) not in lines), self.other_files)

    def lines(self, *, verbose: bool = False, hint: str = "") -> list[str]:
        """Describe the notes as text: a line per kind of fault, and one for all other files.

        Args:
            verbose: whether to name every fault and file on a line of its own instead of a few.
            hint: added to a line that does not name all, such as `; --verbose lists them`.
        """
        faults = self.fault_lines(verbose=verbose, hint=hint)
        return [*faults, *self.file_lines(verbose=verbose, hint=hint)]

    def fault_lines(self, *, verbose: bool = False, hint: str = "") -> list[str]:
        """Describe the faults; see `lines`."""
        kinds: dict[FaultKind, list[str]] = {}
        for fault in self.faults:
            kinds.setdefault(fault.kind, []).append(str(fault))
        lines = []
        for kind, names in kinds.items():
            title = kind.counted(len(names))
            if verbose:
                lines += [f"{title}:", *(f"  {name}" for name in names)]
            else:
                lines.append(f"{title}: {_first(names, hint)}")
        return lines

    def file_lines(self, *, verbose: bool = False, hint: str = "") -> list[str]:
        """Describe the files that are not images; see `lines`."""
        counts = {kind: len(paths) for kind, paths in self.other_files.items() if paths}
        if not counts:
            return []
        text = counts_text(counts, OTHER_FILE)
        if not verbose:
            return [f"left out: {text}{hint}"]
        kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
        names = [f"  {path} ({noun_of(kind)})" for kind in kinds for path in self.other_files[kind]]
        return [f"left out: {text}:", *names]


def _first(names: Sequence[str], hint: str) -> str:
    more = len(names) - EXAMPLES
    return " ".join(names[:EXAMPLES]) + (f" … and {more:,} more{hint}" if more > 0 else "")


def notes_for(notes: SourceNotes, unlabelled: Mapping[str, Sequence[str]] | None) -> SourceNotes:
    """Keep what matters to a stage, and add the images that lack a label it reads.

    Args:
        notes: notes of the source.
        unlabelled: the label fields that an image lacks, by its name, of those that the stage
            reads; None if it reads none.
    """
    if unlabelled is None:
        faults = [fault for fault in notes.faults if fault.kind in KINDS_WITHOUT_LABELS]
        return SourceNotes(tuple(faults), notes.other_files)
    faults = [
        fault
        for fault in notes.faults
        if fault.kind != IMAGE_WITHOUT_ROW or fault.name in unlabelled
    ]
    named = {fault.name for fault in faults}
    for name, fields in unlabelled.items():
        if name not in named:
            reason = f"has no {' and no '.join(fields)}."
            faults.append(SourceFault(IMAGE_WITHOUT_LABEL, name, reason, harmless=True))
    return SourceNotes(tuple(faults), notes.other_files)


def check_share(notes: SourceNotes, total_images: int, max_share: float, *, command: str) -> None:
    """Stop if too many labels are out of step with the images.

    Args:
        notes: notes of the source; harmless ones do not count.
        total_images: number of images in the source.
        max_share: largest share of faults, in [0, 1]; as many are allowed as broken images.
        command: the command that lists all faults.

    Raises:
        DataError: if there are more faults than are allowed.
    """
    allowed = allowed_images(total_images, max_share)
    faults = notes.harmful
    if len(faults) <= allowed:
        return
    kinds = Counter(fault.kind for fault in faults)
    counts = ", ".join(kind.counted(count) for kind, count in kinds.items())
    examples = _first([str(fault) for fault in faults], ";") + listed_by(command, "them all")
    raise DataError(
        f"{counts} among {total_images:,} images, but max_broken_share={max_share:g} allows "
        f"{allowed:,}: {examples}"
    )
