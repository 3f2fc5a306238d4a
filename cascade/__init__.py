"""Cascade: cascaded and super-resolution diffusion in pixel space.

Public names are imported when they are first used, so that `import cascade` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cascade.conditioning.labels import LabelVocabulary
    from cascade.contract import Contract
    from cascade.data.batch import Batch
    from cascade.data.sources import FolderSource, ImageSource, ShardSource, open_source
    from cascade.data.training_images import TrainingImages
    from cascade.diffusion.process import NoiseProcess
    from cascade.diffusion.schedule import NoiseSchedule
    from cascade.errors import CascadeError
    from cascade.evaluation.evaluate import evaluate
    from cascade.evaluation.likelihood import bits_per_dimension
    from cascade.evaluation.scores import Evaluation
    from cascade.pipeline import CascadeOutput, CascadePipeline
    from cascade.sampling.settings import SamplingSettings
    from cascade.stage import Stage
    from cascade.sweeping.results import Sweep
    from cascade.sweeping.sweep import sweep
    from cascade.training.settings import TrainingSettings
    from cascade.training.trainer import Trainer

__version__ = "0.1.0"

_HOMES = {
    "Batch": "cascade.data.batch",
    "CascadeError": "cascade.errors",
    "CascadeOutput": "cascade.pipeline",
    "CascadePipeline": "cascade.pipeline",
    "Contract": "cascade.contract",
    "Evaluation": "cascade.evaluation.scores",
    "FolderSource": "cascade.data.sources",
    "ImageSource": "cascade.data.sources",
    "LabelVocabulary": "cascade.conditioning.labels",
    "NoiseProcess": "cascade.diffusion.process",
    "NoiseSchedule": "cascade.diffusion.schedule",
    "SamplingSettings": "cascade.sampling.settings",
    "ShardSource": "cascade.data.sources",
    "Stage": "cascade.stage",
    "Sweep": "cascade.sweeping.results",
    "Trainer": "cascade.training.trainer",
    "TrainingImages": "cascade.data.training_images",
    "TrainingSettings": "cascade.training.settings",
    "bits_per_dimension": "cascade.evaluation.likelihood",
    "evaluate": "cascade.evaluation.evaluate",
    "open_source": "cascade.data.sources",
    "sweep": "cascade.sweeping.sweep",
}

__all__ = [
    "Batch",
    "CascadeError",
    "CascadeOutput",
    "CascadePipeline",
    "Contract",
    "Evaluation",
    "FolderSource",
    "ImageSource",
    "LabelVocabulary",
    "NoiseProcess",
    "NoiseSchedule",
    "SamplingSettings",
    "ShardSource",
    "Stage",
    "Sweep",
    "Trainer",
    "TrainingImages",
    "TrainingSettings",
    "bits_per_dimension",
    "evaluate",
    "open_source",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cascade' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
