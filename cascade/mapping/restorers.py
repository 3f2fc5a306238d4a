"""Picklable objects that restore the pictures of a batch: for Ray Data, Dask, Spark and the like.

Such an engine sends an object to many processes, calls it with batches, and sends a batch again if
a process dies. So only names and settings travel, each process loads the model once, and a result
depends on nothing but its picture and the settings: it is that of the command, up to the rounding
of the device where many small pictures of one size are drawn together.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, final

from cascade.arguments import check_kind
from cascade.bulk.commands import prepare_colouring, prepare_upscaling
from cascade.bulk.preparing import Preparation
from cascade.bulk.request import Request
from cascade.bulk.restoring import Mending, prepare_restoring
from cascade.bulk.work import Bulk
from cascade.data.object_stores import open_store, read_object
from cascade.data.remote import without_secrets
from cascade.errors import CascadeError, ContractError
from cascade.mapping.columns import ERROR, NAME, PATH, RESULTS, Columns, place_of
from cascade.mapping.files import FileResult, PictureFile, absolute_address, results_of
from cascade.mapping.models import LOCK, ModelChoice, kept_model
from cascade.mapping.settings import MapperSettings
from cascade.pipeline import CascadePipeline
from cascade.restoration.colouring import Colouring
from cascade.restoration.restoring import Restoration
from cascade.restoration.upscaling import Upscaling
from cascade.sampling.overrides import Overrides

Batch = Mapping[str, Any]


class PictureMapper(ABC):
    """Restores the pictures in a batch of columns; `Upscaler` and the others are final.

    Call it with a dictionary of columns such as `{"path": […], "bytes": […]}`; it returns one with
    the results. It can be pickled: only the name of the model and the settings travel.

    Args:
        model: a bundled pipeline, a folder that all processes see, or a Hub id.
        device: the device to compute on; None for the best one of each process.
        engine: `openvino` or a folder of `cascade export`; None for PyTorch.
        adapters: folders of adapters, each with the factor of its change.
        column: column of the pictures; None to look for `bytes`, `content` or `image`, and to read
            the files at `path` if there is none of these.
        name_column: column of the names of files; None for `name`, or else `path`.
        root: folder or address in which the results keep the folders of their inputs; None to keep
            only the last part of a path.
        out: folder or address such as `s3://bucket/large`, to which the results of files are
            written instead of returned; None to return them.
        settings: fields of `Upscaling`, `Colouring` or `Restoration`; for files `image_format`,
            `metadata`, `overwrite`, `range`, `pages`, `truncated`, `axis` and `nodata` (see
            `cascade.bulk.request.Request`); and sampling settings, as in a call of a pipeline.

    Raises:
        ContractError: if a setting does not exist, or no model could take its value.
        WeightsError: if the model does not exist.
        DataError: if `out` is no address that can be opened.
    """

    kind: ClassVar[type]

    def __init__(
        self,
        model: str | Path,
        *,
        device: str | None = None,
        engine: str | None = None,
        adapters: Sequence[tuple[str, float]] = (),
        column: str | None = None,
        name_column: str | None = None,
        root: str | Path | None = None,
        out: str | Path | None = None,
        **settings: Any,
    ) -> None:
        self._settings = MapperSettings.read(self.kind, settings)
        self._model = ModelChoice.of(model, device=device, engine=engine, adapters=adapters)
        self._model.request_with(self._settings.files)
        for argument, value in (("column", column), ("name_column", name_column)):
            check_kind(argument, value, str | None, "the name of a column")
        self._column = column
        self._name_column = name_column
        self._root = None if root is None else absolute_address("root", root)
        self._out = None if out is None else absolute_address("out", out)
        if _is_one_place(self._out, self._root):
            raise ContractError(
                f"out and root are both {without_secrets(str(root))}, so results could replace "
                "originals; choose another place for the results."
            )
        if self._out is not None:
            open_store(self._out)
        elif "overwrite" in settings:
            raise ContractError("overwrite is for results that are written; give out too.")

    def __repr__(self) -> str:
        settings = {**self._settings.own, **self._settings.files, **self._settings.sampling}
        listing = "".join(f", {name}={value!r}" for name, value in settings.items())
        return f"{type(self).__name__}({self._model.name!r}{listing})"

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """Restore the pictures of a batch.

        Args:
            batch: columns of one length, by name. Pictures are whole files as bytes, or arrays or
                PIL images as for `CascadePipeline.upscale`; they are all of one of these kinds.
                Files need a column with their names.

        Returns:
            All columns. Results take the place of the pictures; for files, `name` is the name of
            the result, and `error` says why a picture has none, and is empty otherwise. With `out`
            the column of the pictures is left out. Rows that have a text as `error` already keep it
            and get no result, which is None.

        Raises:
            CascadeError: if columns and settings do not fit together or to the model, or results
                cannot be written.
        """
        columns = Columns.of_pictures(batch, self._column)
        if columns.pictures is not None and not _holds_files(columns.values[columns.pictures]):
            return self._of_arrays(columns, columns.pictures)
        return self._of_files(columns)

    @abstractmethod
    def prepare(self, request: Request, own: Mapping[str, Any]) -> Bulk:
        """The loop over the files of a request; `own` are the fields of `kind`."""

    @abstractmethod
    def method_of(self, pipeline: CascadePipeline) -> Callable[..., Any]:
        """The method of a pipeline that restores arrays."""

    # ---- arrays ---------------------------------------------------------------------------------

    def _of_arrays(self, columns: Columns, name: str) -> dict[str, Any]:
        unread = [*self._settings.files, *(["out"] if self._out is not None else [])]
        if unread:
            raise ContractError(
                f"{unread[0]} is for files, but column {name!r} holds arrays; leave it out, or "
                "give the bytes of the files."
            )
        rows = [row for row, error in enumerate(columns.failed_before()) if not error]
        values = [columns.values[name][row] for row in rows]
        results: list[Any] = [None] * len(columns)
        if values:
            with LOCK:
                method = self.method_of(kept_model(self._model).pipeline)
                images = method(values, **self._settings.own, **self._settings.sampling)
            for row, image in zip(rows, images, strict=True):
                results[row] = image
        return columns.with_results({name: results})

    # ---- files ----------------------------------------------------------------------------------

    def _of_files(self, columns: Columns) -> dict[str, Any]:
        files, results = self._files(columns)
        with LOCK:
            pipeline = kept_model(self._model).pipeline
            names = pipeline.stages.names
            request = replace(
                self._model.request_with(self._settings.files),
                overrides=Overrides.per_stage(names, names, **self._settings.sampling),
                pipeline=pipeline,
            )
            results |= results_of(files, request, self._prepared, self._out)
        ordered = [results[number] for number in range(len(columns))]
        new: dict[str, list[Any]] = {
            NAME: [each.name for each in ordered],
            ERROR: [each.error for each in ordered],
        }
        pictures = columns.pictures or RESULTS
        if self._out is None:
            new[pictures] = [each.data for each in ordered]
        others = {name: each for name, each in columns.values.items() if name != pictures}
        return Columns(others).with_results(new)

    def _prepared(self, request: Request) -> Bulk:
        """The loop of a request, whose method is that of the first batch with these settings."""
        methods, key = kept_model(self._model).methods, pickle.dumps(self)
        if key not in methods:
            bulk = self.prepare(request, self._settings.own)
            methods[key] = bulk.method
            return bulk
        seed = self._settings.own.get("seed", 0)
        return Preparation(methods[key].command, request, seed).bulk(methods[key], None)

    def _files(self, columns: Columns) -> tuple[dict[int, PictureFile], dict[int, FileResult]]:
        """The files of a batch by row, and what is known already of those that cannot be read."""
        column = self._name_column_of(columns)
        names = columns.values.get(column, [])
        files, failures = {}, {}
        for number, error in enumerate(columns.failed_before()):
            name = str(names[number])
            try:
                if error:
                    failures[number] = FileResult(without_secrets(name), error=error)
                else:
                    place = place_of(name, self._root, is_path=column == PATH)
                    origin = columns.values[PATH][number] if PATH in columns.values else None
                    data = _bytes_of(columns, number)
                    files[number] = PictureFile(place, data, origin and str(origin))
            except CascadeError as failure:
                failures[number] = FileResult(without_secrets(name), error=str(failure))
        return files, failures

    def _name_column_of(self, columns: Columns) -> str:
        known = (NAME, PATH) if self._name_column is None else (self._name_column,)
        for name in known:
            if name in columns.values:
                return name
        raise ContractError(
            f"files need their names in a column {' or '.join(known)}; the batch has "
            f"{columns.listing()}."
        )


@final
class Upscaler(PictureMapper):
    """Upscales the pictures in a batch of columns.

    `PictureMapper` describes the arguments and batches. The model needs upsamplers; `scale=2` is
    the factor for both sides, see `cascade.restoration.upscaling.Upscaling`.
    """

    kind = Upscaling

    def prepare(self, request: Request, own: Mapping[str, Any]) -> Bulk:
        return prepare_upscaling(request, Upscaling(**own))

    def method_of(self, pipeline: CascadePipeline) -> Callable[..., Any]:
        return pipeline.upscale


@final
class Colouriser(PictureMapper):
    """Colours the pictures in a batch of columns.

    `PictureMapper` describes the arguments and batches. The model needs a stage that takes grey.
    """

    kind = Colouring

    def prepare(self, request: Request, own: Mapping[str, Any]) -> Bulk:
        return prepare_colouring(request, Colouring(**own))

    def method_of(self, pipeline: CascadePipeline) -> Callable[..., Any]:
        return pipeline.colourise


@final
class Restorer(PictureMapper):
    """Restores the pictures in a batch with a stage that was trained on pairs.

    `PictureMapper` describes the arguments and batches. A model that was not trained on pairs mends
    what is transparent in files.
    """

    kind = Restoration

    def prepare(self, request: Request, own: Mapping[str, Any]) -> Bulk:
        return prepare_restoring(request, Restoration(**own), Mending())

    def method_of(self, pipeline: CascadePipeline) -> Callable[..., Any]:
        return pipeline.restore


def _is_one_place(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and one.rstrip("/") == other.rstrip("/")


def _holds_files(values: Sequence[Any]) -> bool:
    return all(each is None or isinstance(each, bytes | bytearray | memoryview) for each in values)


def _bytes_of(columns: Columns, number: int) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: if it is read by its path, and cannot be.
        ContractError: if the column of files holds nothing for it.
    """
    if columns.pictures is None:
        return read_object(str(columns.values[PATH][number]))
    data = columns.values[columns.pictures][number]
    if data is None:
        raise ContractError(f"there is no image in column {columns.pictures!r}.")
    return bytes(data)
