"""Joins parts that were done apart: checks that they belong together, and finds what is missing.

A part notes in its ledger what it has to do, so nothing but the folders of the results is needed:
neither the inputs nor the model. A result counts if the ledger lists it and its file is there with
the size that the ledger notes. Results are not opened; a later run of the command checks them.

Parts whose results were copied into one folder, where no two have the same name, become one
job: their lines are written into the ledger that the command keeps for a folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascade.bulk.destination import Destination, LocalFolder, StoreFolder
from cascade.bulk.ledger import RESULT_EVENTS, Ledger, ledger_file, part_ledgers
from cascade.bulk.outcome import ALL_DONE, SOME_FAILED, failure_line
from cascade.bulk.parts import Part
from cascade.bulk.records import relevant_settings
from cascade.data.remote import is_remote
from cascade.errors import DataError
from cascade.reporting.words import counted
from cascade.saving.atomic import atomic_file


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What the parts of a job have made.

    Attributes:
        parts: number of parts that there should be.
        absent: the parts that have no ledger.
        done: number of pictures with a result.
        failed: name and reason of each input without a result that was tried.
        missing: name of each input without a result that was not, with its part.
        left_out: number of pictures that the command does not work on.
        files: the ledger of each part, or a copy of it.
        keys: the keys of all results that the parts had to make.
        merged: the ledger for all parts; None if the results are in several folders.
        destination: where this ledger goes.
    """

    parts: int
    absent: Sequence[Part]
    done: int
    failed: Sequence[tuple[str, str]]
    missing: Sequence[tuple[str, Part]]
    left_out: int
    files: Sequence[Path]
    keys: Set[str]
    merged: Path | None
    destination: Destination

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return SOME_FAILED if self.absent or self.failed or self.missing else ALL_DONE

    def lines(self) -> Iterator[str]:
        """One line for each input or part that is missing."""
        for part in self.absent:
            yield f"missing: part {part}, which has no record here; run it, or name its folder"
        for name, reason in self.failed:
            yield failure_line(name, reason)
        for name, part in self.missing:
            yield f"missing: {name} (part {part}; run it again)"

    def merge(self) -> None:
        """Write the lines about results of all parts into the ledger of their folder, if it is one.

        What that ledger says about other results stays.

        Raises:
            OutputError: if it cannot be written.
        """
        if self.merged is None:
            return
        earlier = list(_lines_about_results(self.merged)) if self.merged.is_file() else ()
        with atomic_file(self.merged) as temporary, temporary.open("wb") as output:
            output.writelines(line for key, line in earlier if key not in self.keys)
            for file in self.files:
                output.writelines(line for _, line in _lines_about_results(file))
        self.destination.keep_ledger(self.merged, now=True)

    def last_line(self) -> str:
        """All counts in one line."""
        present = self.parts - len(self.absent)
        texts = [f"{present:,} of {counted(self.parts, 'part')}", f"{self.done:,} done"]
        texts += [f"{len(self.failed):,} failed"] if self.failed else []
        texts += [f"{len(self.missing):,} missing"] if self.missing else []
        texts += [f"{self.left_out:,} left out"] if self.left_out else []
        where = "" if self.merged is None else f"; joined in {self.destination.name(self.merged)}"
        return ", ".join(texts) + where


def join_parts(folders: Sequence[str | Path], command: str) -> Joined:
    """Join the parts whose results are in some folders.

    Args:
        folders: one folder for all parts, or several; each may be the address of one in a store.
        command: `upscale`, `colourise`, `restore` or `edit`.

    Raises:
        DataError: if a folder holds no part, or the parts do not belong together.
    """
    destinations = dict(_opened(folder, command) for folder in folders)
    places = _places(destinations, command)
    counts = sorted({part.count for part in places})
    if len(counts) > 1:
        raise DataError(
            f"{_name(destinations, places[min(places)])} holds parts of {counts[0]} and "
            f"{_name(destinations, places[max(places)])} parts of {counts[-1]}; name folders of "
            "one job, and remove the records of the other."
        )
    whole = _Whole()
    for part, file in places.items():
        whole.add(part, file, destinations[file.parent])
    parts = [Part(count=counts[0], number=number + 1) for number in range(counts[0])]
    files = list(places.values())
    is_in_one = len({file.parent.resolve() for file in files}) == 1
    return Joined(
        parts=len(parts),
        absent=[part for part in parts if part not in places],
        done=whole.done,
        failed=whole.failed,
        missing=whole.missing,
        left_out=whole.left_out,
        files=files,
        keys=whole.owners.keys(),
        merged=ledger_file(files[0].parent, command) if is_in_one else None,
        destination=destinations[files[0].parent],
    )


def _opened(place: str | Path, command: str) -> tuple[Path, Destination]:
    """The folder of the ledgers, of which those of a store are copies, and of the results."""
    if not is_remote(str(place)):
        return Path(place), LocalFolder()
    store = StoreFolder(str(place), kept_in="joined")
    store.fetch_ledgers(command)
    return store.folder, store


def _name(destinations: Mapping[Path, Destination], file: Path) -> str:
    return destinations[file.parent].name(file.parent)


def _places(destinations: Mapping[Path, Destination], command: str) -> dict[Part, Path]:
    """The ledger of each part."""
    places: dict[Part, Path] = {}
    for folder, destination in destinations.items():
        ledgers = part_ledgers(folder, command)
        if not ledgers:
            what = "holds no part" if folder.is_dir() else "is not a folder with parts"
            raise DataError(
                f"{destination.name(folder)} {what} of {command}; expected a file such as "
                f"{ledger_file(folder, command, Part(8, 1)).name}, which a run with a part writes."
            )
        for part, file in ledgers.items():
            other = places.setdefault(part, file)
            if other.resolve() != file.resolve():
                raise DataError(
                    f"part {part} is in {_name(destinations, other)} and in "
                    f"{destination.name(folder)}; name one of the two."
                )
    return dict(sorted(places.items()))


@dataclass
class _Whole:
    """What the parts seen so far have made."""

    done: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    missing: list[tuple[str, Part]] = field(default_factory=list)
    left_out: int = 0
    _first: tuple[Part, Mapping[str, Any]] | None = None
    owners: dict[str, Part] = field(default_factory=dict)  # of results, by key

    def add(self, part: Part, file: Path, destination: Destination) -> None:
        """Add a part.

        Raises:
            DataError: if it does not belong to the others.
        """
        ledger = Ledger(file, is_read_only=True)
        if ledger.head is None or "settings" not in ledger.head:
            raise DataError(f"{file} does not say what its part had to do; run part {part} again.")
        self._check_head(part, ledger.head)
        for name, reason in ledger.head["unreadable"]:
            if (name, reason) not in self.failed:  # each part sees the same folders
                self.failed.append((name, reason))
        for (key, settings_id), name in ledger.planned.items():
            owner = self.owners.setdefault(key, part)
            if owner != part:
                raise DataError(
                    f"parts {owner} and {part} both have a result {key}, so it is unclear which "
                    "input it belongs to; run both parts again in new folders."
                )
            is_there = _is_there(destination, file.parent / key)
            self._add_result(ledger, is_there, key, settings_id, name, part)

    def _check_head(self, part: Part, head: Mapping[str, Any]) -> None:
        if self._first is None:
            self._first = part, head
            return
        first, other = self._first
        ours, theirs = relevant_settings(head["settings"]), relevant_settings(other["settings"])
        differing = [key for key in sorted(ours | theirs) if ours.get(key) != theirs.get(key)]
        if differing:
            key = differing[0]
            raise DataError(
                f"parts {first} and {part} do not belong together: part {first} was made with "
                f"{_setting(theirs, key)}, part {part} with {_setting(ours, key)}; run one of them "
                "again."
            )
        if (head["inputs"], head["inputs_id"]) != (other["inputs"], other["inputs_id"]):
            raise DataError(
                f"parts {first} and {part} saw different inputs ({other['inputs']:,} and "
                f"{head['inputs']:,}), so some may be in no part; run all parts again with the "
                "same inputs, which makes only what is missing."
            )

    def _add_result(
        self,
        ledger: Ledger,
        is_there: Callable[[Mapping[str, Any]], bool],
        key: str,
        settings_id: str,
        name: str,
        part: Part,
    ) -> None:
        """Count a result, or the results in a shard."""
        shard = ledger.packed.get(key, {})
        line = shard or ledger.results.get(key, {})
        last = ledger.this_round.get((key, settings_id), {})
        last = ledger.unpacked.get((key, settings_id), last)
        if last.get("event") in ("failed", "unpacked"):
            self.failed.append((last["name"], last["reason"]))
        elif last.get("event") == "left_out":
            self.left_out += 1
        elif line.get("settings_id") == settings_id and is_there(line):
            self.done += shard.get("pictures", 1)
            self.failed += [
                (shard.get("failed_inputs", {}).get(job, name), reason)
                for job, reason in shard.get("failed", {}).items()
            ]
        else:
            self.missing.append((name, part))


def _setting(settings: Mapping[str, Any], key: str) -> str:
    if key in settings:
        return f"{key} {settings[key]}"
    return "the input's format" if key == "format" else f"no {key}"


def _is_there(destination: Destination, path: Path) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a result has the size that its line notes; a copy has other times."""

    def check(line: Mapping[str, Any]) -> bool:
        try:
            return destination.stamp(path)[0] == line["result_stamp"][0]
        except (OSError, LookupError, TypeError):
            return False

    return check


def _lines_about_results(file: Path) -> Iterator[tuple[str, bytes]]:
    """Key and text of each line of a ledger that is about a result."""
    with file.open("rb") as lines:
        for line in lines:
            with suppress(ValueError, LookupError, TypeError):  # a killed process wrote half of it
                values = json.loads(line)
                if values["event"] in RESULT_EVENTS:
                    yield values["output"], line.rstrip() + b"\n"
