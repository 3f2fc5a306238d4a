"""What a source noticed besides its images: labels out of step, and files that are not images.

A source fills in `SourceNotes` while it lists its images, so reading them costs nothing. Commands
print `SourceNotes.lines`, and `check_share` stops when too many labels are out of step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cascade.data.broken import allowed_images
from cascade.errors import DataError

EXAMPLES = 3

ROW_WITHOUT_IMAGE = "rows without an image"
IMAGE_WITHOUT_ROW = "images without a row"
IMAGE_WITHOUT_LABEL = "images without a label"
CONTRADICTING_ROWS = "images with contradicting rows"
REPEATED_ROW = "repeated rows"
UNREADABLE_ROW = "rows that cannot be read"
OTHER_CASE = "names that differ in case only"
OTHER_UNICODE_FORM = "names in another Unicode form"
LABELS_WITHOUT_IMAGE = "label files without an image"
SHARED_LABELS = "images that share a label file"
UNREAD_TABLE = "tables that are not read"
DEAD_LINK = "links that lead nowhere"
UNREADABLE_FOLDER = "folders that cannot be read"
DOTTED_NAME = "images with a further dot in their name"
NOT_SELECTED = "images whose label cannot be read, so that they are not selected"
KINDS_WITHOUT_LABELS = {DEAD_LINK, UNREADABLE_FOLDER, DOTTED_NAME}  # they concern images


@dataclass(frozen=True)
class SourceFault:
    """Something about one image, row or label file that the user should know.

    Attributes:
        kind: plural noun that names the kind of fault, one of the constants of this module.
        name: the file, row or folder, for messages.
        reason: what is wrong, and what to do where that is not obvious.
        harmless: whether nothing is lost, so that it does not count as a broken image.
    """

    kind: str
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
        other_files: paths of the files that are not images, by kind: `hidden`, `no suffix`, or the
            suffix, such as `.pdf`. Files of labels that are read are not among them.
    """

    faults: tuple[SourceFault, ...] = ()
    other_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def harmful(self) -> list[SourceFault]:
        """The faults that count as broken images."""
        return [fault for fault in self.faults if not fault.harmless]

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
        kinds: dict[str, list[str]] = {}
        for fault in self.faults:
            kinds.setdefault(fault.kind, []).append(str(fault))
        lines = []
        for kind, names in kinds.items():
            lines += _named(f"{len(names)} {kind}", names, hint, verbose=verbose)
        files = sorted(self.other_files.items(), key=lambda item: (-len(item[1]), item[0]))
        counts = ", ".join(f"{len(paths)} {kind}" for kind, paths in files if paths)
        if counts:
            total = sum(len(paths) for _, paths in files)
            line = f"left out: {total} files that are not images ({counts})"
            lines.append(line if verbose else line + hint)
        if verbose:
            lines += [f"left out: {path} ({kind})" for kind, paths in files for path in paths]
        return lines


def _named(title: str, names: Sequence[str], hint: str, *, verbose: bool) -> list[str]:
    if verbose:
        return [f"{title}:", *(f"  {name}" for name in names)]
    more = f" … and {len(names) - EXAMPLES} more{hint}" if len(names) > EXAMPLES else ""
    return [f"{title}: {' '.join(names[:EXAMPLES])}{more}"]


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
            reason = f"has no {' and no '.join(fields)}, so it counts as one of any."
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
    kinds: dict[str, int] = {}
    for fault in faults:
        kinds[fault.kind] = kinds.get(fault.kind, 0) + 1
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    examples = " ".join(str(fault) for fault in faults[:EXAMPLES])
    raise DataError(
        f"{counts} among {total_images} images, but max_broken_share={max_share:g} allows "
        f"{allowed}: {examples} {command} lists them all."
    )
