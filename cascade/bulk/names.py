"""Names of results: no two alike, none too long, and the same ones on every later run.

A result is named after its input, with the suffix of its own format. If that gives two inputs the
same name, one of them keeps it, and the others add the suffix to their whole name: `a.jpg.png`. If
an input has that name too, a hash is added as well: `a.jpg~1f40fc92.png`.

The name goes to the input that an existing result of that name was made from, so that inputs that
arrive later change no name; else to the input that has the name itself; else to the first one in
order. Names count as the same if the file system takes them for the same, or if they differ in
their Unicode form only.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cascade.bulk.inputs import InputPicture
from cascade.bulk.progress import Note, with_examples
from cascade.bulk.windows_names import windows_place
from cascade.imaging.rasters.reading import suffix_of
from cascade.reporting.words import counted
from cascade.saving.atomic import LONGEST_NAME_BYTES

IS_WINDOWS = os.name == "nt"
TOO_LONG = "too long for a file, shortened"
IsResultOf = Callable[[PurePosixPath, InputPicture], bool]


@dataclass(frozen=True)
class Naming:
    """How results are named.

    Attributes:
        renamed: the place of the result of an input, if no other result has it.
        is_result_of: whether the file at the place of a result was made from an input.
        folded: maps a name to a text that is the same for names of one file.
    """

    renamed: Callable[[InputPicture], PurePosixPath]
    is_result_of: IsResultOf
    folded: Callable[[str], str]

    def places(self, pictures: Sequence[InputPicture]) -> tuple[list[PurePosixPath], list[Note]]:
        """The place of the result of each picture, and notes about names that are unusual.

        Two pictures from inputs with the very same name still share a place.
        """
        places = self._assign(pictures)
        return places, [*self._kept_suffixes(pictures, places), *self._shortened(pictures, places)]

    def _assign(self, pictures: Sequence[InputPicture]) -> list[PurePosixPath]:
        """Let each picture choose among its names, those with an earlier result first."""
        inputs = {each.place: each for each in pictures}.values()
        counts = Counter(
            key for each in inputs for key in set(map(self._key, self._names(each)[:2]))
        )
        earlier = [
            self._earlier(each, is_rival=counts[self._key(self._plain(each))] > 1)
            for each in pictures
        ]
        order = sorted(
            range(len(pictures)),
            key=lambda i: (earlier[i] is None, *self._rank(pictures[i])),
        )
        owners: dict[str, PurePosixPath] = {}  # places of inputs, by the key of a result
        places = list(map(self._plain, pictures))
        for index in order:
            place, first = pictures[index].place, earlier[index]
            names = self._names(pictures[index])
            for places[index] in names if first is None else [first, *names]:
                if owners.setdefault(self._key(places[index]), place) == place:
                    break
        return places

    def _rank(self, picture: InputPicture) -> tuple[bool, str]:
        return picture.place != self._plain(picture), str(picture.place)

    def _earlier(self, picture: InputPicture, *, is_rival: bool) -> PurePosixPath | None:
        """The name of the result that an earlier run made from a picture, if that is in question.

        Args:
            picture: the picture.
            is_rival: whether another input might have the same name.
        """
        names = self._names(picture)
        names = names if is_rival else names[1:]
        return next((name for name in names if self.is_result_of(name, picture)), None)

    def _names(self, picture: InputPicture) -> list[PurePosixPath]:
        """The names that the result of a picture may have, the usual one first."""
        plain = self._plain(picture)
        name, suffix = picture.place.name, plain.suffix
        others = f"{name}{suffix}", f"{name}~{_digest(name)}{suffix}"
        return [plain, *(_fitting(picture.place.with_name(each)) for each in others)]

    def _plain(self, picture: InputPicture) -> PurePosixPath:
        return _fitting(self.renamed(picture))

    def _key(self, place: PurePosixPath) -> str:
        return self.folded(str(place))

    def _kept_suffixes(
        self, pictures: Sequence[InputPicture], places: Sequence[PurePosixPath]
    ) -> list[Note]:
        renamed = [
            f"{picture.name} -> {place.name}"
            for picture, place in zip(pictures, places, strict=True)
            if place != self._plain(picture)
        ]
        keep = counted(len(renamed), "result keeps", "results keep")
        lead = f"{keep} the suffix of the input, to differ from another result"
        return [with_examples(lead, renamed)] if renamed else []

    def _shortened(
        self, pictures: Sequence[InputPicture], places: Sequence[PurePosixPath]
    ) -> list[Note]:
        renamed = [
            f"{picture.name} -> {place.name}"
            for picture, place in zip(pictures, places, strict=True)
            if _fitting(self.renamed(picture)) != self.renamed(picture)
        ]
        reason = "too long or not allowed for a file, changed" if IS_WINDOWS else TOO_LONG
        lead = f"{counted(len(renamed), 'name')} {reason}"
        return [with_examples(lead, renamed)] if renamed else []


def _digest(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]


def with_ending(place: PurePosixPath, ending: str, suffix: str | None = None) -> PurePosixPath:
    """Add a word to a name, before the suffix: `a.png` -> `a-seed3.png`.

    Args:
        place: the file.
        ending: the word.
        suffix: a suffix to replace that of the name.
    """
    own = place.name[len(place.name) - len(suffix_of(place.name)) :]
    stem = place.name.removesuffix(own)
    return _fitting(place.with_name(f"{stem}-{ending}{suffix or own}"))


def with_suffix_added(place: PurePosixPath, suffix: str) -> PurePosixPath:
    """Add a suffix to a name: `a.png` -> `a.png.jpg`."""
    return _fitting(place.with_name(f"{place.name}{suffix}"))


def _fitting(place: PurePosixPath) -> PurePosixPath:
    """Change a name that file systems do not hold; a hash of it keeps it apart from others."""
    place = windows_place(place) if IS_WINDOWS else place
    name = place.name
    if len(os.fsencode(name)) <= LONGEST_NAME_BYTES:
        return place
    ending = f"~{_digest(name)}{place.suffix}"
    stem = place.stem
    while stem and len(os.fsencode(stem + ending)) > LONGEST_NAME_BYTES:
        stem = stem[:-1]
    return place.with_name(stem + ending)


def folding_of(folder: Path, names: Sequence[str]) -> Callable[[str], str]:
    """How names fold in a folder: always to one Unicode form, and if needed to one case.

    Args:
        folder: the folder of the results, which need not exist yet.
        names: all names; the file system is asked only if some of them differ in case alone.
    """
    forms = {_one_form(name) for name in names}
    if len({form.casefold() for form in forms}) == len(forms) or not _ignores_case(folder):
        return _one_form
    return lambda name: _one_form(name).casefold()


def _one_form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _ignores_case(folder: Path) -> bool:
    """Whether a file in the folder, or in the nearest one above it, has a name of any case."""
    existing = next((each for each in (folder, *folder.parents) if each.is_dir()), folder)
    try:
        with tempfile.NamedTemporaryFile(prefix=".cascade-", suffix=".Case", dir=existing) as file:
            return Path(file.name).with_suffix(".cASE").exists()
    except OSError:
        return False
