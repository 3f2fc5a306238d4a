"""What a picture says about how it was made: model, seed, settings, mark, and who signed it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cascade.errors import ContractError
from cascade.imaging.credentials import Manifest, read_manifest
from cascade.imaging.marks import SHEET, SOURCE_TYPE
from cascade.imaging.opening import format_of, opened_image, read_bytes
from cascade.imaging.rasters.arrays import NPY_HEAD
from cascade.imaging.rasters.reading import PICTURE, RASTER_SUFFIXES, raster_format, suffix_of
from cascade.imaging.rasters.recorded import mark_in

NOTHING = (
    "none: Cascade did not make it, it was saved from Python without its mark, or its metadata was "
    "removed"
)
BESIDE = "none: an uncertainty map or a sheet that Cascade wrote beside its results"
NO_PLACE = "none: .npy has no place for one; .npz has"
Number = Annotated[float, Field(allow_inf_nan=False)]


class PictureRecord(BaseModel):
    """What `cascade generate` and the bulk commands record in a picture, with the types of it.

    A setting that a picture was made without is None or empty. Keys that are not declared here are
    kept in `model_extra`.

    Attributes:
        command: the command that made the picture.
        model: a bundled pipeline, an id of the Hub, or the last part of a folder.
        model_is_folder: whether it is that of a folder.
        adapters: the last part of each adapter's folder, and the factor of its change.
        stages: the sampling settings of each stage that ran, by its name.
        changed: those that the model did not have by itself, as `stage.name`.
        seeds: of a mean over several seeds their number, of a contact sheet its seeds.
        labels: class names by label field, or as a command line gives them.
        size_px: height and width of the picture in pixels.
        expected_error: hash of the curve that the map of doubt beside it was made with.
    """

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, protected_namespaces=())

    command: str = ""
    version: str = ""
    model: str = ""
    model_is_folder: bool = False
    adapters: list[tuple[str, Number]] = []
    weights: str = ""
    stages: dict[str, dict[str, Any]] = {}
    changed: list[str] = []
    seed: Annotated[int, Field(ge=0)] | None = None
    seeds: int | list[int] | None = None
    prompt: str | None = None
    prompts: list[str] | None = None
    negative_prompt: str | None = None
    labels: str | dict[str, str] | None = None
    like: str | None = None
    stop_at: str | None = None
    scale: Number | None = None
    tile_px: int | None = None
    consistent: bool | None = None
    range: tuple[int, int] | None = None
    axis: int | None = None
    nodata: Number | None = None
    hints_sha256: str | None = None
    mask_sha256: str | None = None
    uncrop: list[int] | None = None
    strength: Number | None = None
    resamplings: int | None = None
    jump_length: int | None = None
    window_px: int | None = None
    feather_px: int | None = None
    grow_px: int | None = None
    stays_grey: bool | None = None
    pages: str | None = None
    truncated: str | None = None
    metadata: bool | None = None
    signer: str | None = None
    input_sha256: str = ""
    size_px: tuple[int, int] | None = None
    page_count: int | None = None
    expected_error: str | None = None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> PictureRecord:
        """Check the types of a record.

        Raises:
            ContractError: naming the first key whose value has a wrong type.
        """
        try:
            return cls.model_validate_json(json.dumps(values))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            key = ".".join(str(each) for each in fault["loc"])
            raise ContractError(f"{key}: {fault['msg']}" if key else fault["msg"]) from error
        except (ValueError, RecursionError) as error:
            raise ContractError(str(error)) from error

    @property
    def recorded(self) -> dict[str, Any]:
        """The values that it holds by key, without those that are None."""
        keys = self.model_fields_set  # which holds those that are not declared too
        return {key: each for key, each in dict(self).items() if key in keys and each is not None}

    @property
    def label_text(self) -> str:
        """The class names as a command line gives them; empty if there are none."""
        labels = self.labels or ""
        return labels if isinstance(labels, str) else ",".join(labels.values())


@dataclass(frozen=True)
class Inspection:
    """How a picture was made.

    Attributes:
        record: what Cascade recorded in it; None if there is nothing, or it cannot be read.
        raw_record: the record as it stands in the picture; empty if there is none.
        fault: why the record cannot be read; empty if it can, or if there is none.
        mark: its IPTC source type, system and version by their names; empty if there are none.
        manifest: what its content credentials say and whether they hold; None if there are none.
        unchecked: why they could not be checked; empty if they were, or if there are none.
        is_sheet: whether it is a sheet, or a map of doubt, that stands beside results.
        has_place: whether its format has a place for a record.
    """

    record: PictureRecord | None = None
    raw_record: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""
    mark: Mapping[str, str] = field(default_factory=dict)
    manifest: Manifest | None = None
    unchecked: str = ""
    is_sheet: bool = False
    has_place: bool = True

    @property
    def source_type(self) -> str:
        """The IPTC's word for how the picture came about; empty without a mark."""
        return self.mark.get(SOURCE_TYPE, "")

    def lines(self) -> list[tuple[str, str]]:
        """What there is to say without the command, as names and texts."""
        lines = [("mark", self.source_type)]
        if self.fault:
            lines.append(("record", f"cannot be read ({self.fault})"))
        elif self.record is not None:
            lines += _record_lines(self.record)
        elif not self.mark:
            nothing = NOTHING if self.has_place else NO_PLACE
            lines.append(("record", BESIDE if self.is_sheet else nothing))
        lines += [] if self.manifest is None else self.manifest.lines()
        lines.append(("manifest", self.unchecked))
        return [(name, text) for name, text in lines if text]


def _record_lines(record: PictureRecord) -> list[tuple[str, str]]:
    stages = (
        f"{name}: {each.get('sampler')}, {each.get('steps')} steps"
        for name, each in record.stages.items()
    )
    return [
        ("model", record.model),
        ("version", record.version),
        ("prompt", record.prompt or ""),
        ("negative", record.negative_prompt or ""),
        ("like", record.like or ""),
        ("labels", record.label_text.replace(",", ", ")),
        ("seed", "" if record.seed is None else str(record.seed)),
        ("stages", "; ".join(stages)),
        ("input", record.input_sha256[:16]),
    ]


def pictures_of(paths: Iterable[Path]) -> list[Path]:
    """The files to inspect: those that are named, and in folders all with the suffix of an image.

    Hidden files and folders are left out.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        files += [
            file
            for file in sorted(path.rglob("*"))
            if suffix_of(file.name) in RASTER_SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
            and not file.is_dir()
        ]
    return list(dict.fromkeys(files))


def inspect_picture(path: Path) -> Inspection:
    """Read how a picture was made.

    Raises:
        DataError: if the file cannot be read or is not an image.
    """
    data = read_bytes(path)
    read = mark_in(data, str(path))
    raw_record = read.record
    record, fault, unchecked, manifest, is_sheet = None, "", "", None, False
    try:
        record = PictureRecord.read(raw_record) if raw_record else None
    except ContractError as error:
        fault = str(error)
    kind = raster_format(data, str(path))
    if kind == PICTURE:
        with opened_image(data, str(path)) as image:
            is_sheet = _is_sheet(image.info.get("comment"))
    try:
        if kind in (PICTURE, "TIFF"):
            manifest = read_manifest(data, format_of(data, str(path)))
    except ContractError as error:
        unchecked = f"not checked: {error}"
    return Inspection(
        record=record,
        raw_record=raw_record,
        fault=fault,
        mark=read.mark,
        manifest=manifest,
        unchecked=unchecked,
        is_sheet=is_sheet,
        has_place=not data.startswith(NPY_HEAD),
    )


def _is_sheet(comment: Any) -> bool:
    """Whether the comment in a file is that of the sheets."""
    text = comment.decode("ascii", "replace") if isinstance(comment, bytes) else str(comment)
    return text.startswith(SHEET)
