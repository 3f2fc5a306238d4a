"""Models that a process loads once and keeps, for objects that travel between processes."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cascade.arguments import check_kind, real_number, shown
from cascade.bulk.method import Method
from cascade.bulk.request import Request
from cascade.bulk.request_model import load_model
from cascade.engines.running import OPENVINO
from cascade.errors import ContractError
from cascade.pipeline import CascadePipeline
from cascade.saving.pipelines import is_hub_id, local_folder, pipeline_folder

MOST_KEPT = 2  # for example a colouriser and an upscaler after it
LOCK = threading.RLock()  # threads of one process share a model, and take turns


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A model by its name, which is all that travels to other processes.

    Attributes:
        name: a bundled pipeline, an absolute folder, or a Hub id.
        device: the device to compute on; None for the best one of each process.
        engine: see `Request.engine`.
        adapters: folders of adapters, each with the factor of its change.
    """

    name: str
    device: str | None = None
    engine: str | None = None
    adapters: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(
        cls,
        name: str | Path,
        *,
        device: str | None,
        engine: str | None,
        adapters: Sequence[tuple[str, float]],
    ) -> ModelChoice:
        """Check that a model exists, without loading it, and make its folder absolute.

        Processes of other engines work in folders of their own.

        Raises:
            ContractError: if the name is no text.
            WeightsError: if there is no such model. An id of the Hub is not looked up here.
        """
        check_kind("model", name, str | Path, "the name or folder of a pipeline")
        name = str(name)
        if local_folder(name) is not None or not is_hub_id(name):
            pipeline_folder(name)
        folders = [_adapter(each) for each in adapters]
        if engine is not None and device is not None:
            raise ContractError("an engine chooses the device itself; give only one of them.")
        _check_device(device)
        _check_engine(engine)
        return cls(
            name=str(_absolute(name)),
            device=device,
            engine=engine and str(_absolute(engine)),
            adapters=tuple(folders),
        )

    def request_with(self, settings: Mapping[str, Any]) -> Request:
        """A request for this model, without pictures.

        Args:
            settings: further fields of the request.

        Raises:
            ContractError: if a value is out of range.
        """
        return Request(
            inputs=(),
            out=Path(),
            model=self.name,
            device=self.device,
            engine=self.engine,
            adapters=self.adapters,
            **settings,
        )


def _adapter(value: Any) -> tuple[str, float]:
    """The absolute folder of an adapter and its factor."""
    is_pair = isinstance(value, list | tuple) and len(value) == 2
    if not is_pair or not isinstance(value[0], str | Path):
        raise ContractError(
            f"adapters must be pairs such as ('my-adapter', 0.8), got {shown(value)}."
        )
    return str(_absolute(str(value[0]))), float(real_number("the factor of an adapter", value[1]))


def _check_device(name: str | None) -> None:
    """Check that torch knows a kind of device; other processes may have it where this has not."""
    try:
        torch.device("cpu" if name is None else name)
    except (RuntimeError, TypeError) as error:
        raise ContractError(
            f"device must be cpu, cuda, cuda:1, mps or another kind that torch knows, got "
            f"{shown(name)}."
        ) from error


def _check_engine(engine: str | None) -> None:
    if engine is not None and engine != OPENVINO and not Path(engine).is_dir():
        raise ContractError(
            f"engine must be {OPENVINO} or a folder that cascade export wrote, got {shown(engine)}."
        )


def _absolute(name: str) -> str | Path:
    """A folder by its absolute path; any other name as it is."""
    return Path(name).resolve() if Path(name).is_dir() else name


@dataclass(frozen=True)
class KeptModel:
    """A model that a process keeps.

    Attributes:
        pipeline: the loaded pipeline.
        methods: the methods that were prepared with it, by any key. Preparing one hashes all
            weights, which takes too long for every batch. They hold the pipeline, so they are
            dropped together with it.
    """

    pipeline: CascadePipeline
    methods: dict[bytes, Method] = field(default_factory=dict)


@lru_cache(maxsize=MOST_KEPT)
def kept_model(model: ModelChoice) -> KeptModel:
    """A model, loaded when this process needs it for the first time.

    Call it with `LOCK` held.

    Raises:
        CascadeError: if it cannot be loaded.
    """
    pipeline = load_model(model.request_with({}))
    pipeline.set_progress_bar_config(disable=True)
    return KeptModel(pipeline)
