"""A picklable object that generates a picture for each row of a batch."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from cascade.arguments import check_kind, flag, whole_number
from cascade.call import CallOptions, CascadeOutput
from cascade.data.object_stores import open_store, write_object
from cascade.diffusion.noise import derive_seed
from cascade.errors import ContractError
from cascade.generation.picture_files import suffix_of_space, write_pictures
from cascade.generation.request import Generation
from cascade.imaging.writing import check_can_be_pictures
from cascade.mapping.columns import NAME, Columns, place_of
from cascade.mapping.files import absolute_address, address_of
from cascade.mapping.models import LOCK, ModelChoice, kept_model
from cascade.mapping.settings import check_settings
from cascade.pipeline import CascadePipeline
from cascade.space import Space
from cascade.stage import Stage

OWN = ("prompt", "negative_prompt", "labels", "stop_at", "batch_size", "precision")
OF_ROWS, OF_CALL = ("prompt", "labels"), ("stop_at", "batch_size", "precision")
SEED, FILES, IMAGES = "seed", "bytes", "image"


@final
class Generator:
    """Generates one picture for each row of a batch of columns.

    The noise of a row comes from its column `seed`, or else from its `name`, so it is the same in
    any process and batch. A seed gives the picture of `cascade generate --seed`. Pictures that are
    drawn together differ from those drawn alone by the rounding of the device; `batch_size=1`
    avoids that.

    Args:
        model: a bundled pipeline, a folder that all processes see, or a Hub id.
        seed: whole number that is mixed with the names of rows, where names decide the noise.
        device: the device to compute on; None for the best one of each process.
        engine: `openvino` or a folder of `cascade export`; None for PyTorch.
        adapters: folders of adapters, each with the factor of its change.
        as_arrays: whether to return arrays (H, W, C) of 8 bits in `image` instead of the files that
            `cascade generate` writes. Arrays carry no mark that says how they were made.
        out: folder or address such as `s3://bucket/pictures`, to which the files are written
            instead of returned; None to return them.
        settings: `prompt`, `negative_prompt`, `labels`, `stop_at`, `batch_size`, `precision` and
            sampling settings, as in a call of a pipeline; columns `prompt` and `labels` take
            precedence.

    Raises:
        ContractError: if a setting does not exist, or no model could take its value.
        WeightsError: if the model does not exist.
        DataError: if `out` is no address that can be opened.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        seed: int = 0,
        device: str | None = None,
        engine: str | None = None,
        adapters: Sequence[tuple[str, float]] = (),
        as_arrays: bool = False,
        out: str | Path | None = None,
        **settings: Any,
    ) -> None:
        check_settings(settings, OWN)
        _check_own(settings)
        if flag("as_arrays", as_arrays) and out is not None:
            raise ContractError("out is for files; leave out as_arrays.")
        self._seed = whole_number("seed", seed, low=0)
        self._model = ModelChoice.of(model, device=device, engine=engine, adapters=adapters)
        self._as_arrays = as_arrays
        self._out = None if out is None else absolute_address("out", out)
        self._settings = settings
        if self._out is not None:
            open_store(self._out)

    def __repr__(self) -> str:
        listing = "".join(f", {name}={value!r}" for name, value in self._settings.items())
        return f"{type(self).__name__}({self._model.name!r}{listing})"

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Generate one picture for each row.

        Args:
            batch: columns of one length, by name: `seed`, whole numbers, or `name`, texts that
                differ; perhaps `prompt` and `labels`, such as `cat-face,noto`.

        Returns:
            All columns with the `seed` of each row, and the pictures: `bytes` of PNG files, or of
            TIFF for bands, or `image`, or neither if they are written. `name` gets the suffix of
            the files.

        Raises:
            CascadeError: if columns and settings do not fit together or to the model, or files
                cannot be written.
        """
        columns = Columns.read(batch)
        seeds = self._seeds(columns)
        if not seeds:
            return columns.with_results({SEED: []})
        if self._out is not None and NAME not in columns.values:
            raise ContractError(f"files are written under names; add a column {NAME!r}.")
        with LOCK:
            pipeline = kept_model(self._model).pipeline
            names = self._names(pipeline, columns)
            result = self._generate(pipeline, columns, seeds)
            if self._as_arrays:
                arrays = _arrays(self._last(pipeline).space, result)
                return columns.with_results({SEED: seeds, IMAGES: arrays})
            files = self._files(pipeline, result)
        return columns.with_results({SEED: seeds, **self._as_columns(names, files)})

    def _seeds(self, columns: Columns) -> list[int]:
        if SEED in columns.values:
            return [whole_number(SEED, each, low=0) for each in columns.values[SEED]]
        if NAME not in columns.values:
            raise ContractError(
                f"each image needs noise of its own: add a column {SEED!r} of whole numbers or "
                f"{NAME!r} of texts; the batch has {columns.listing()}."
            )
        return [derive_seed(self._seed, NAME, str(each)) for each in columns.values[NAME]]

    def _generate(
        self, pipeline: CascadePipeline, columns: Columns, seeds: list[int]
    ) -> CascadeOutput:
        rows = {name: columns.values[name] for name in OF_ROWS if name in columns.values}
        settings = {**self._settings, **rows}
        prompts = settings.pop("prompt", None)
        result = pipeline(prompts, num_images=len(seeds), seeds=seeds, output_type="pt", **settings)
        assert isinstance(result, CascadeOutput)
        return result

    def _last(self, pipeline: CascadePipeline) -> Stage:
        """The last stage that runs."""
        return pipeline.stages[self._settings.get("stop_at") or pipeline.stages.names[-1]]

    def _files(self, pipeline: CascadePipeline, result: CascadeOutput) -> list[bytes]:
        """The files that `cascade generate` writes."""
        generation = Generation(
            prompts=result.prompts if any(result.prompts) else (),
            negative_prompt=self._settings.get("negative_prompt"),
            stop_at=self._settings.get("stop_at"),
            adapters=self._model.adapters,
        )
        with tempfile.TemporaryDirectory(prefix="cascade-") as folder:
            suffix = suffix_of_space(self._last(pipeline).space)
            files = [Path(folder, f"{number}{suffix}") for number in range(len(result.seeds))]
            write_pictures(result, files, self._model.name, generation, pipeline.stages)
            return [file.read_bytes() for file in files]

    def _names(self, pipeline: CascadePipeline, columns: Columns) -> list[str]:
        """The names of the files, which must differ if they are written.

        Raises:
            ContractError: if two files would have the same name.
        """
        if self._as_arrays:
            return []
        suffix = suffix_of_space(self._last(pipeline).space)
        places = [str(place_of(each, None)) for each in columns.values.get(NAME, [])]
        names = [each if each.endswith(suffix) else f"{each}{suffix}" for each in places]
        doubles = [name for name, count in Counter(names).items() if count > 1]
        if self._out is not None and doubles:
            rows = [str(columns.values[NAME][n]) for n, e in enumerate(names) if e == doubles[0]]
            raise ContractError(
                f"names {' and '.join(map(repr, rows))} would all be written to {doubles[0]}; "
                "give each row a name of its own."
            )
        return names

    def _as_columns(self, names: list[str], files: list[bytes]) -> dict[str, list[Any]]:
        """The columns of the files, or write the files."""
        named = {NAME: names} if names else {}
        if self._out is None:
            return {FILES: files, **named}
        for name, file in zip(names, files, strict=True):
            write_object(address_of(self._out, name), file)
        return named


def _check_own(settings: Mapping[str, Any]) -> None:
    """Check the settings that are no sampling settings; each is for all rows."""
    for name in ("prompt", "negative_prompt"):
        check_kind(name, settings.get(name), str | None, "a text for all rows")
    kinds = str | Mapping | None
    check_kind("labels", settings.get("labels"), kinds, "class names for all rows, as 'cat,noto'")
    CallOptions(**{name: settings[name] for name in OF_CALL if settings.get(name) is not None})


def _arrays(space: Space, result: CascadeOutput) -> list[np.ndarray]:
    """The pictures as arrays (H, W, C) of 8 bits."""
    if space.has_bands:
        raise ContractError("a model of bands makes files of measured values; leave out as_arrays.")
    check_can_be_pictures(space.channels, space.kind)
    images = ((result.images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return list(images.permute(0, 2, 3, 1).cpu().numpy())
