"""Lists a folder of images: images, files of labels, and what is neither, each file once."""

from __future__ import annotations

import os
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

from cascade.data.label_files import LabelKey
from cascade.data.notes import DEAD_LINK, NO_ROLE, SECOND_LINK, UNREADABLE_FOLDER, SourceFault
from cascade.data.roles import NEITHER, Role, role_of
from cascade.data.source import check_text
from cascade.imaging.opening import IMAGE_SUFFIXES
from cascade.imaging.other_files import HIDDEN, HIDDEN_FOLDER, NOT_REGULAR, kind_of
from cascade.imaging.rasters.reading import suffix_of

LABEL_SUFFIXES = (".json", ".txt")


@dataclass
class FolderListing:
    """The files of a folder by what they are.

    Attributes:
        images: the images in the order of their paths, by path within the folder.
        label_files: files of labels by key and suffix.
        other_files: paths of all other files by kind, see `SourceNotes`.
        faults: what is wrong with links and folders.
    """

    images: dict[str, Path] = field(default_factory=dict)
    label_files: dict[LabelKey, Path] = field(default_factory=dict)
    other_files: dict[str, list[str]] = field(default_factory=dict)
    faults: list[SourceFault] = field(default_factory=list)

    def add_other(self, kind: str, path: Path) -> None:
        """Count a file that is not an image."""
        text = str(path).encode(errors="replace").decode()
        self.other_files.setdefault(kind, []).append(text)


def list_folder(
    folder: Path, suffixes: Set[str] = IMAGE_SUFFIXES, role: Role | None = None
) -> FolderListing:
    """List a folder recursively.

    Links to folders are followed after everything else, so that each file is found at its own place
    if it has one in the folder. A link to an image that is found at its own place is left out.
    A dangling link with the suffix of an image is listed as an image: it is a broken one, which
    must not go unnoticed.

    Args:
        folder: the root folder.
        suffixes: suffixes of the files that are images, in small letters.
        role: of pairs in one folder, which of both images to list; None for all images.

    Raises:
        DataError: if the name of an image or of a file of labels is not UTF-8.
    """
    search = _Search(folder, suffixes, role)
    search.run()
    listing = search.listing
    for name, path in sorted(search.images.items()):
        own_place = search.own_places.get(os.path.realpath(path)) if path.is_symlink() else None
        if own_place is None:
            listing.images[name] = path
        else:
            reason = f"is not read, because {own_place} is."
            fault = SourceFault(SECOND_LINK, str(path), reason, harmless=True)
            listing.faults.append(fault)
    return listing


class _Search:
    def __init__(self, folder: Path, suffixes: Set[str], role: Role | None) -> None:
        self.folder = folder
        self.suffixes = suffixes
        self.role = role
        self.listing = FolderListing()
        self.images: dict[str, Path] = {}  # unsorted
        self.own_places: dict[str, Path] = {}  # images reached without any link, by real path
        self._visited: set[str] = set()

    def run(self) -> None:
        waiting = [self.folder]
        for top in waiting:
            for place, folders, files in os.walk(top, onerror=self._note_unreadable):
                real = os.path.realpath(place)
                if real in self._visited:
                    folders.clear()
                    continue
                self._visited.add(real)
                waiting += self._visible_folders(Path(place), folders)
                own_place = real if top == self.folder else None
                for name in sorted(files):
                    self._add_file(Path(place, name), own_place)

    def _visible_folders(self, place: Path, names: list[str]) -> list[Path]:
        """Remove hidden folders and links from a list of folders, and return the links."""
        for name in names:
            if name.startswith("."):
                self.listing.add_other(HIDDEN_FOLDER, place / name)
        visible = sorted(name for name in names if not name.startswith("."))
        links = [place / name for name in visible if (place / name).is_symlink()]
        names[:] = [name for name in visible if place / name not in links]
        return links

    def _add_file(self, path: Path, own_place: str | None) -> None:
        suffix = suffix_of(path.name)
        if path.name.startswith("."):
            self.listing.add_other(HIDDEN, path)
        elif not (path.is_file() or _leads_nowhere(path)):
            self.listing.add_other(NOT_REGULAR, path)
        elif suffix in self.suffixes:
            name = self._text(path)
            if self.role not in (None, role_of(name)):
                self._note_role(name, path)
                return
            self.images[name] = path
            if own_place is not None and not path.is_symlink():
                self.own_places[os.path.join(own_place, path.name)] = path
        elif suffix in LABEL_SUFFIXES:
            self._add_label_file(path, suffix)
        elif _leads_nowhere(path):
            target = os.readlink(path)
            reason = f"there is nothing at {target}; repair or remove the link."
            self.listing.faults.append(SourceFault(DEAD_LINK, str(path), reason))
        else:
            self.listing.add_other(kind_of(path.name), path)

    def _note_role(self, name: str, path: Path) -> None:
        """Note an image without a role; one of the other role is listed by another source."""
        if role_of(name) is None:
            self.listing.faults.append(SourceFault(NO_ROLE, str(path), NEITHER, harmless=True))

    def _add_label_file(self, path: Path, suffix: str) -> None:
        key = self._text(path)[: -len(suffix)]
        files = self.listing.label_files
        if (key, suffix) in files:  # a.txt beside a.TXT; capitals come first
            self.listing.add_other(suffix, files[key, suffix])
        files[key, suffix] = path

    def _text(self, path: Path) -> str:
        name = path.relative_to(self.folder).as_posix()
        check_text(name, str(path))
        return name

    def _note_unreadable(self, error: OSError) -> None:
        reason = f"cannot be read ({error.strerror or error}), so its images are missing."
        self.listing.faults.append(SourceFault(UNREADABLE_FOLDER, str(error.filename), reason))


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()
