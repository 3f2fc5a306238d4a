"""Lists the members of a webdataset shard: images, their labels, and what is neither."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from webdataset.tariterators import base_plus_ext

from cascade.data.annotations import caption, json_labels, json_values, without_texts
from cascade.data.label_files import check_label_files
from cascade.data.notes import DOTTED_NAME, NO_ROLE, SourceFault
from cascade.data.roles import NEITHER, Role, role_of
from cascade.data.source import MAX_LABELS_BYTES, MAX_MEMBER_BYTES, check_text
from cascade.errors import DataError
from cascade.imaging.opening import IMAGE_SUFFIXES
from cascade.imaging.other_files import HIDDEN, NOT_REGULAR, WITHOUT_SUFFIX

LABEL_PARSERS = {"txt": caption, "json": json_labels}  # the later one wins


@dataclass(frozen=True)
class ShardImage:
    """Where an image lies in a shard, and its labels.

    Attributes:
        shard: the tar file.
        shard_name: name of the shard for messages.
        member: name of the image file within the shard.
        key: name of the member without suffix, by webdataset's rules.
        offset: position of the image's first byte in the tar file.
        size_bytes: size of the image file.
        labels: class names or captions, by field.
        other_values: what its JSON file holds besides text, by name.
        label_errors: one message per file of labels that cannot be read.
    """

    shard: Path
    shard_name: str
    member: str
    key: str
    offset: int
    size_bytes: int
    labels: dict[str, str] = field(default_factory=dict)
    other_values: dict[str, Any] = field(default_factory=dict)
    label_errors: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the image for messages."""
        return f"{self.shard_name}:{self.member}"

    def read(self) -> bytes:
        """Read the image file.

        Raises:
            DataError: if it cannot be read.
        """
        try:
            with open(self.shard, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size_bytes)
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read ({error.strerror}).") from error
        if len(data) < self.size_bytes:
            raise DataError(f"{self.name}: the shard is truncated.")
        return data


@dataclass
class ShardIndex:
    """The members of a shard by what they are.

    Attributes:
        images: the images with their labels, in the order of the shard.
        other_members: names for messages of all other members by kind, see `SourceNotes`.
        faults: what is wrong with labels and names.
    """

    images: list[ShardImage] = field(default_factory=list)
    other_members: dict[str, list[str]] = field(default_factory=dict)
    faults: list[SourceFault] = field(default_factory=list)

    def add(self, other: ShardIndex) -> None:
        """Append the members of another shard."""
        self.images += other.images
        self.faults += other.faults
        for kind, names in other.other_members.items():
            self.other_members.setdefault(kind, []).extend(names)


def index_shard(
    shard: Path, name: str, suffixes: Set[str] = IMAGE_SUFFIXES, role: Role | None = None
) -> ShardIndex:
    """List the members of a shard: images with their labels, and what is not an image.

    Args:
        shard: the tar file.
        name: name of the shard for messages.
        suffixes: suffixes of the members that are images, in small letters.
        role: of pairs, which of both images to list; None for all images.

    Raises:
        DataError: if the shard is damaged or truncated, or a member is sparse, too large, or has a
            name that is not UTF-8.
    """
    index = _Index(shard, name, suffixes, role)
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in members_of(tar):
                index.add(tar, member)
            _check_end(tar, name)
    except DataError:
        raise
    except Exception as error:  # tarfile raises many kinds on damaged headers
        raise DataError(f"{name}: not a readable tar file ({error}).") from error
    return index.result()


def members_of(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file, in their order.

    GNU tar writes a hard link for the second name of a file. Such a link is listed as a regular
    file under its own name, which lies where the first one does.
    """
    files: dict[str, tarfile.TarInfo] = {}  # the last one of each name
    for member in tar:
        target = files.get(posixpath.normpath(member.linkname)) if member.islnk() else None
        file = member if target is None else target.replace(name=member.name, deep=False)
        if file.isfile():
            files[posixpath.normpath(member.name)] = file
        yield file


class _Index:
    """Collects images and labels of one shard, in whatever order its members come."""

    def __init__(
        self, shard: Path, name: str, suffixes: Set[str], role: Role | None = None
    ) -> None:
        self.shard = shard
        self.name = name
        self.suffixes = suffixes
        self.role: Role | None = role
        self._images: dict[str, ShardImage] = {}
        self._labels: dict[tuple[str, str], dict[str, str]] = {}  # by key and suffix
        self._label_errors: dict[tuple[str, str], str] = {}
        self._other_values: dict[str, dict[str, Any]] = {}  # by key
        self._label_files: dict[tuple[str, str], str] = {}  # names for messages
        self._parts: dict[str, tuple[str, str]] = {}  # key and suffix of images as `1.mask.png`
        self._result = ShardIndex()

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if member.isdir():
            return
        name = f"{self.name}:{member.name}"
        key, suffix = base_plus_ext(member.name)  # the suffix begins at the first dot
        suffix = (suffix or "").lower()
        if _is_hidden(member.name):
            self._add_other(HIDDEN, name)
        elif not member.isfile():
            self._add_other(NOT_REGULAR, name)
        elif key is None or not suffix:
            self._add_other(WITHOUT_SUFFIX, name)
        else:
            _check_member(member, suffix, name)
            self._add_file(tar, member, key, suffix)

    def _add_file(
        self, tar: tarfile.TarFile, member: tarfile.TarInfo, key: str, suffix: str
    ) -> None:
        name = f"{self.name}:{member.name}"
        suffixes = self.suffixes if self.role is None else self._suffixes_of(self.role)
        if f".{suffix}" in suffixes:
            place = (member.offset_data, member.size)
            self._images[member.name] = ShardImage(self.shard, self.name, member.name, key, *place)
        elif suffix in LABEL_PARSERS:
            data = _member_bytes(tar, member)
            self._label_files[key, suffix] = name
            try:
                self._labels[key, suffix] = LABEL_PARSERS[suffix](data, name)
                if suffix == "json":
                    self._other_values[key] = without_texts(json_values(data, name))
            except DataError as error:  # only this image is broken, not the whole shard
                self._label_errors[key, suffix] = str(error)
        elif self.role is not None and f".{suffix.rpartition('.')[2]}" in self.suffixes:
            if role_of(f".{suffix}") is None:
                self._result.faults.append(SourceFault(NO_ROLE, name, NEITHER, harmless=True))
        elif f".{suffix.rpartition('.')[2]}" in self.suffixes:
            self._parts[member.name] = (key, suffix)
        else:
            self._add_other(f".{suffix}", name)

    def _suffixes_of(self, role: Role) -> Set[str]:
        return {f".{role}{suffix}" for suffix in self.suffixes}

    def _add_other(self, kind: str, name: str) -> None:
        self._result.other_members.setdefault(kind, []).append(name)

    def result(self) -> ShardIndex:
        for image in self._images.values():
            image.other_values.update(self._other_values.get(image.key, {}))
            for suffix in LABEL_PARSERS:
                image.labels.update(self._labels.get((image.key, suffix), {}))
                if (image.key, suffix) in self._label_errors:
                    image.label_errors.append(self._label_errors[image.key, suffix])
        self._result.images = list(self._images.values())
        keys = [(image.member, image.key) for image in self._result.images]
        files = check_label_files(keys, self._label_files)
        self._result.faults += files.faults
        for key, suffix in files.unrelated:
            self._add_other(f".{suffix}", self._label_files[key, suffix])
        self._sort_parts({key for _, key in keys})
        return self._result

    def _sort_parts(self, keys: set[str]) -> None:
        """Sort images such as `1.mask.png`: part of the sample of `1.png`, or a name with dots."""
        for member, (key, suffix) in self._parts.items():
            name = f"{self.name}:{member}"
            if key in keys:
                self._add_other(f".{suffix}", name)
            else:
                reason = (
                    f"webdataset takes {suffix!r} for its suffix, so it is not read; rename it "
                    "so that its only dot is the one before the suffix."
                )
                self._result.faults.append(SourceFault(DOTTED_NAME, name, reason))


def _is_hidden(member: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in member.split("/"))


def _check_member(member: tarfile.TarInfo, suffix: str, name: str) -> None:
    check_text(member.name, name)
    limit = MAX_LABELS_BYTES if suffix in LABEL_PARSERS else MAX_MEMBER_BYTES
    if member.size > limit:
        raise DataError(f"{name} has {member.size} bytes; at most {limit} are allowed.")
    if member.issparse():  # the bytes are not where the header says
        raise DataError(f"{name} is a sparse file, which is not supported.")


def _member_bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read()


def _check_end(tar: tarfile.TarFile, name: str) -> None:
    """Check for the end mark where `tarfile` stopped: it also stops silently at damaged headers."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{name}: damaged or truncated after byte {tar.offset}; fetch it again.")
