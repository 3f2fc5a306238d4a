"""Shards of results: one for each shard of inputs, with the same members in the same order.

Shards exist because a file system with millions of small files is slow, so results of shards are
shards too, and at no time are there more loose files than the shards in work hold. A process claims
a whole shard. The results of its pictures are ordinary jobs, in a hidden folder beside the result;
that is what makes a killed run lose nothing but the picture it was drawing, because ledger, records
and checks are the same as for pictures in folders. When all are finished, the result is written
aside and renamed, and the folder is removed.

Pictures keep their members' names, except for the suffix where the format changes. All other files
of the shard are copied byte for byte. A picture that fails has no member; its reason stays in the
record, so that the next run names it again without drawing the whole shard anew. The record is the
comment in the head of the tar file (a global header of POSIX pax, as `git archive` has it), so that
results can be copied without their ledger.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, final

from cascade.bulk.destination import Destination
from cascade.bulk.inputs import InputShard
from cascade.bulk.jobs import ImageFormat, Job, PageChoice, plan_jobs, work_folder
from cascade.bulk.ledger import Ledger
from cascade.bulk.making import disk_errors
from cascade.bulk.method import Method
from cascade.bulk.progress import Note
from cascade.bulk.records import INPUT, Record, difference, settings_id
from cascade.data.shard_index import ShardImage, members_of
from cascade.data.shard_writing import sha256_of, write_tar
from cascade.errors import DataError, OutputError
from cascade.imaging.opening import read_bytes

MEMBERS, FAILED = "members", "failed"  # keys of the record: number of members, reasons by job


@final
@dataclass(frozen=True)
class ShardPlan:
    """A shard of results.

    Attributes:
        source: the shard of the inputs.
        output: the file to write.
        jobs: the results in it, which are files in `folder` until it is packed.
        settings: those of all its jobs, besides those of the method.
    """

    source: InputShard
    output: Path
    jobs: Sequence[Job]
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Path of the result below the folder of the results; no two shards have the same."""
        return self.source.place.as_posix()

    @property
    def folder(self) -> Path:
        """The folder of its results until it is packed."""
        return work_folder(self.output)

    def members(self) -> Iterator[tuple[tarfile.TarInfo, Job | None]]:
        """The members of the input that the result keeps, each picture with its job.

        Raises:
            DataError: if the input cannot be read.
        """
        jobs = {
            (job.source.image.member, job.source.image.offset): job
            for job in self.jobs
            if isinstance(job.source.image, ShardImage)
        }
        try:
            with tarfile.open(self.source.file, "r:") as tar:
                for member in members_of(tar):
                    job = jobs.get((member.name, member.offset_data))
                    is_old = job is None and member.name in self.source.pictures
                    if member.isfile() and not is_old and member.name not in self.source.unread:
                        yield member, job
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"{self.source.name}: cannot be read ({error}).") from error


def plan_shards(
    shards: Sequence[InputShard],
    out: Path,
    *,
    image_format: ImageFormat | None = None,
    seed: int = 0,
    pages: PageChoice = "all",
    bands: bool = False,
) -> tuple[list[ShardPlan], list[Note]]:
    """List the shards of results to make, and what the user should know about names.

    Args:
        shards: the shards of the inputs.
        out: folder of the results.
        image_format: see `plan_jobs`, as for the others.
        seed: whole number that decides the noise.
        pages: whether to work on all pages of a file, or on the first alone.
        bands: whether the pictures are files of bands.

    Raises:
        OutputError: if two results would have the same name, or a result would replace an input.
    """
    _check_names(shards, out)
    settings = {
        "seed": seed,
        **({} if image_format is None else {"format": image_format}),
        **({} if pages == "all" else {"pages": pages}),
    }
    plans, notes = [], []
    for shard in shards:
        output = out / shard.place
        pictures = [
            replace(picture, place=picture.place.relative_to(shard.place.with_suffix("")))
            for picture in shard.pictures.values()
        ]
        plan = plan_jobs(
            pictures,
            work_folder(output),
            image_format=image_format,
            seeds=[seed],
            pages=pages,
            bands=bands,
        )
        key = shard.place.as_posix()
        jobs = [replace(job, key=f"{key}/{job.key}", shard=output) for job in plan.jobs]
        plans.append(ShardPlan(shard, output, jobs, settings))
        notes += plan.notes
    return plans, notes


def _check_names(shards: Sequence[InputShard], out: Path) -> None:
    names: dict[PurePosixPath, str] = {}
    inputs = {shard.file.resolve() for shard in shards}
    for shard in shards:
        other = names.setdefault(shard.place, shard.name)
        if other != shard.name:
            raise OutputError(
                f"{other} and {shard.name} would both be written to {out / shard.place}; rename "
                "one, name them by one pattern such as 'a/**/*.tar', or run the command for each."
            )
        if (out / shard.place).resolve() in inputs:
            raise OutputError(
                f"{out / shard.place} is an input itself; choose another folder for the results."
            )


@final
class Packing:
    """Knows which shards of results are complete, and packs the others.

    Args:
        method: how their results are made.
        ledger: the lines of all processes that share the folder of the results.
        destination: where finished shards go.
    """

    def __init__(self, method: Method, ledger: Ledger, destination: Destination) -> None:
        self._method = method
        self._ledger = ledger
        self._destination = destination

    def failures_of(self, shard: ShardPlan) -> dict[str, str] | None:
        """Reasons of the failures in a shard that is packed, by job; None if it is not.

        The ledger is asked first, because it opens no file; then the record in the shard.

        Raises:
            OutputError: if another file has the name of the shard and may not be replaced.
        """
        line = self._ledger.packed.get(shard.key, {})
        try:
            stamps = [self._destination.stamp(shard.output), list(shard.source.stamp())]
        except OSError:
            return None
        same = line.get("settings_id") == self.settings_id(shard)
        if same and [line.get("result_stamp"), line.get("input_stamp")] == stamps:
            return line[FAILED]
        with self._destination.reading(shard.output) as file:
            record, failed = _read_record(file)
            fault = "is not a whole result of this command"
            if record is not None:
                fault = difference(record, self._settings(shard), shard.source)
            if not fault:
                self._note(shard, failed, sha256_of(file))
                return dict(failed)
        if self._method.overwrite:
            return None
        raise OutputError(
            f"{self._destination.name(shard.output)} already exists and {fault}; move it away or "
            "allow overwriting."
        )

    def pack(self, shard: ShardPlan, failed: Mapping[str, str]) -> None:
        """Write a shard whose jobs are all finished, and remove the folder of its results.

        Args:
            shard: the shard.
            failed: reasons of the failures, by the key of the job.

        Raises:
            DiskError: if the disk is full.
            CascadeError: if the input cannot be read or was changed since it was listed, or the
                shard cannot be written.
        """
        shard.source.check_unchanged()
        members = [
            (member, job) for member, job in shard.members() if not job or job.key not in failed
        ]
        record = {
            **self._settings(shard),
            INPUT: shard.source.sha256(),
            MEMBERS: len(members),
            FAILED: dict(failed),
        }
        with disk_errors(0, shard.output.parent):
            write_tar(shard.output, _contents(shard, members), comment=json.dumps(record))
        sha256 = sha256_of(shard.output)
        self._destination.deliver([shard.output])
        self._note(shard, failed, sha256)
        remove_folder(shard)

    def failure_of(self, shard: ShardPlan) -> dict[str, Any]:
        """The line about a shard that failed as a whole in this round; empty if it did not."""
        return self._ledger.unpacked.get((shard.key, self.settings_id(shard)), {})

    def note_failure(self, shard: ShardPlan, reason: str) -> None:
        """Note that a shard failed as a whole."""
        values = {"name": shard.source.name, "reason": reason}
        self._ledger.add("unpacked", shard.key, self.settings_id(shard), values)

    def settings_id(self, shard: ShardPlan) -> str:
        """Hash of the settings of a shard, by which the ledger knows it."""
        return settings_id(self._settings(shard))

    def _settings(self, shard: ShardPlan) -> dict[str, Any]:
        return {**self._method.settings, **shard.settings}

    def _note(self, shard: ShardPlan, failed: Mapping[str, str], sha256: str) -> None:
        values = {
            "input": shard.source.name,
            "input_stamp": list(shard.source.listed_stamp),
            "result_stamp": self._destination.stamp(shard.output),
            "result_sha256": sha256,
            "pictures": len(shard.jobs) - len(failed),
            FAILED: dict(failed),
            "failed_inputs": {job.key: job.source.name for job in shard.jobs if job.key in failed},
        }
        self._ledger.add("packed", shard.key, self.settings_id(shard), values)


def remove_folder(shard: ShardPlan) -> None:
    """Remove the folder of results of a shard that is packed, which needs its claim."""
    shutil.rmtree(shard.folder, ignore_errors=True)


def _contents(
    shard: ShardPlan, members: Sequence[tuple[tarfile.TarInfo, Job | None]]
) -> Iterator[tuple[str, bytes]]:
    """Name and content of each member of the result; the last step checks the input."""
    with shard.source.file.open("rb") as file:
        for member, job in members:
            if job is None:
                file.seek(member.offset_data)
                yield member.name, file.read(member.size)
            else:
                folders = member.name.removesuffix(PurePosixPath(member.name).name)
                yield f"{folders}{job.output.name}", read_bytes(job.output)
    shard.source.check_unchanged()


def _read_record(path: Path) -> tuple[Record | None, Mapping[str, str]]:
    """The record in a whole shard of results, None if it is not one, and its failures."""
    try:
        with tarfile.open(path, "r:") as tar:
            values = json.loads(tar.pax_headers.get("comment", ""))
            sha256, failed = values.pop(INPUT), values.pop(FAILED)
            if values.pop(MEMBERS) != len(tar.getmembers()):
                return None, {}
            return Record(settings=values, input_sha256=sha256, size_px=(0, 0)), failed
    except (OSError, tarfile.TarError, ValueError, LookupError, TypeError, AttributeError):
        return None, {}
