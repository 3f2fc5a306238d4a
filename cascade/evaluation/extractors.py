"""The feature extractors by name. One of your own is a final subclass of `FeatureExtractor`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from cascade.errors import ContractError, nearest
from cascade.evaluation.features import FeatureExtractor, LiteFeatures
from cascade.evaluation.published_extractors import (
    CLIP,
    DINOV2,
    InceptionFeatures,
    TransformerFeatures,
)
from cascade.vision.efficientnet import Size

TRANSFORMERS = {"clip": CLIP, "dinov2": DINOV2}
EXTRACTORS = (*get_args(Size), "inception", *TRANSFORMERS)


def find_extractor(name: str, path: Path | None = None) -> FeatureExtractor:
    """Load an extractor by name.

    Args:
        name: `lite0`, `lite2`, `inception`, `clip` or `dinov2`.
        path: its weights, a file for `inception` or a folder for `clip` and `dinov2`; default: a
            download.

    Raises:
        ContractError: for an unknown name, or a path for an extractor that takes none.
        CascadeError: if its package is not installed.
        WeightsError: if its weights cannot be loaded.
    """
    if name in get_args(Size):
        if path is not None:
            raise ContractError(f"{name} has its weights in its package and takes no path.")
        return LiteFeatures("lite0" if name == "lite0" else "lite2")
    if name == "inception":
        return InceptionFeatures(path)
    if name not in TRANSFORMERS:
        raise ContractError(f"unknown extractor {name!r}: {nearest(name, EXTRACTORS)}")
    return TransformerFeatures(TRANSFORMERS[name], path)
