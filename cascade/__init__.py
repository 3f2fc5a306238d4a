"""Cascade: cascaded and super-resolution diffusion in pixel space.

Public names are imported when they are first used, so that `import cascade` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cascade.autoencoder_stage import AutoencoderStage
    from cascade.conditioning.batch import Batch
    from cascade.conditioning.condition import Condition
    from cascade.conditioning.image_embedding import ImageEmbedding
    from cascade.conditioning.inputs import Inputs
    from cascade.conditioning.labels import Labels, LabelVocabulary
    from cascade.conditioning.low_resolution import LowResolution
    from cascade.conditioning.luminance import Luminance
    from cascade.conditioning.mask import Mask
    from cascade.conditioning.paired_image import PairedImage
    from cascade.conditioning.text import Text
    from cascade.contract import Contract
    from cascade.data.joining import Pairing
    from cascade.data.sources import FolderSource, ImageSource, ShardSource, open_source
    from cascade.data.training_images import TrainingImages
    from cascade.diffusion.process import NoiseProcess
    from cascade.diffusion.schedule import NoiseSchedule
    from cascade.diffusion_stage import DiffusionStage
    from cascade.errors import CascadeError
    from cascade.evaluation.evaluate import evaluate
    from cascade.evaluation.flow_likelihood import flow_bits_per_dimension
    from cascade.evaluation.likelihood import bits_per_dimension
    from cascade.evaluation.results import Evaluation
    from cascade.imaging.marked_writing import save_marked
    from cascade.imaging.rasters.raster import Raster
    from cascade.imaging.rasters.reading import read_raster
    from cascade.imaging.rasters.writing import write_rasters
    from cascade.importing.importing import import_stage
    from cascade.mapping.generator import Generator
    from cascade.mapping.restorers import Colouriser, PictureMapper, Restorer, Upscaler
    from cascade.pipeline import CascadeOutput, CascadePipeline
    from cascade.sampling.overrides import Overrides
    from cascade.sampling.settings import SamplingSettings
    from cascade.space import Space
    from cascade.stage import Run, Stage
    from cascade.stage_kinds import load_stage
    from cascade.sweeping.results import Sweep
    from cascade.sweeping.sweep import sweep
    from cascade.training.objectives.autoencoding import Autoencoding
    from cascade.training.objectives.consistency import Consistency
    from cascade.training.settings import TrainingSettings
    from cascade.training.students import student_of
    from cascade.training.trainer import Trainer

__version__ = "0.1.0"

_HOMES = {
    "AutoencoderStage": "cascade.autoencoder_stage",
    "Autoencoding": "cascade.training.objectives.autoencoding",
    "Batch": "cascade.conditioning.batch",
    "CascadeError": "cascade.errors",
    "CascadeOutput": "cascade.pipeline",
    "CascadePipeline": "cascade.pipeline",
    "Colouriser": "cascade.mapping.restorers",
    "Condition": "cascade.conditioning.condition",
    "Consistency": "cascade.training.objectives.consistency",
    "Contract": "cascade.contract",
    "DiffusionStage": "cascade.diffusion_stage",
    "Evaluation": "cascade.evaluation.results",
    "FolderSource": "cascade.data.sources",
    "Generator": "cascade.mapping.generator",
    "ImageEmbedding": "cascade.conditioning.image_embedding",
    "ImageSource": "cascade.data.sources",
    "Inputs": "cascade.conditioning.inputs",
    "LabelVocabulary": "cascade.conditioning.labels",
    "Labels": "cascade.conditioning.labels",
    "LowResolution": "cascade.conditioning.low_resolution",
    "Luminance": "cascade.conditioning.luminance",
    "Mask": "cascade.conditioning.mask",
    "NoiseProcess": "cascade.diffusion.process",
    "NoiseSchedule": "cascade.diffusion.schedule",
    "Overrides": "cascade.sampling.overrides",
    "PairedImage": "cascade.conditioning.paired_image",
    "Pairing": "cascade.data.joining",
    "PictureMapper": "cascade.mapping.restorers",
    "Raster": "cascade.imaging.rasters.raster",
    "Restorer": "cascade.mapping.restorers",
    "Run": "cascade.stage",
    "SamplingSettings": "cascade.sampling.settings",
    "ShardSource": "cascade.data.sources",
    "Space": "cascade.space",
    "Stage": "cascade.stage",
    "Sweep": "cascade.sweeping.results",
    "Text": "cascade.conditioning.text",
    "Trainer": "cascade.training.trainer",
    "TrainingImages": "cascade.data.training_images",
    "TrainingSettings": "cascade.training.settings",
    "Upscaler": "cascade.mapping.restorers",
    "bits_per_dimension": "cascade.evaluation.likelihood",
    "evaluate": "cascade.evaluation.evaluate",
    "import_stage": "cascade.importing.importing",
    "flow_bits_per_dimension": "cascade.evaluation.flow_likelihood",
    "load_stage": "cascade.stage_kinds",
    "open_source": "cascade.data.sources",
    "read_raster": "cascade.imaging.rasters.reading",
    "save_marked": "cascade.imaging.marked_writing",
    "student_of": "cascade.training.students",
    "sweep": "cascade.sweeping.sweep",
    "write_rasters": "cascade.imaging.rasters.writing",
}

__all__ = [
    "AutoencoderStage",
    "Autoencoding",
    "Batch",
    "CascadeError",
    "CascadeOutput",
    "CascadePipeline",
    "Colouriser",
    "Condition",
    "Consistency",
    "Contract",
    "DiffusionStage",
    "Evaluation",
    "FolderSource",
    "Generator",
    "ImageEmbedding",
    "ImageSource",
    "Inputs",
    "LabelVocabulary",
    "Labels",
    "LowResolution",
    "Luminance",
    "Mask",
    "NoiseProcess",
    "NoiseSchedule",
    "Overrides",
    "PairedImage",
    "Pairing",
    "PictureMapper",
    "Raster",
    "Restorer",
    "Run",
    "SamplingSettings",
    "ShardSource",
    "Space",
    "Stage",
    "Sweep",
    "Text",
    "Trainer",
    "TrainingImages",
    "TrainingSettings",
    "Upscaler",
    "bits_per_dimension",
    "evaluate",
    "flow_bits_per_dimension",
    "import_stage",
    "load_stage",
    "open_source",
    "read_raster",
    "save_marked",
    "student_of",
    "sweep",
    "write_rasters",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cascade' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
