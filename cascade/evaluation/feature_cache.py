"""Collects pictures for comparing sets, and keeps their features in files.

The name of a file is a hash of the bytes of the pictures, their size and the weights of the
extractor, so a change of any of these leads to another file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cascade.evaluation.alignment.model import AlignmentModel
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.image_set import ImageSet, ImageSetBuilder
from cascade.evaluation.progress import NamedProgress
from cascade.evaluation.real_pictures import RealPictures
from cascade.saving.atomic import atomic_file
from cascade.space import Space

READ_AT_A_TIME = 32
CACHED = ("features", "colourfulness", "colour_mean", "colour_spread", "shown")


def collect_images(
    pictures: RealPictures,
    space: Space,
    extractor: FeatureExtractor,
    *,
    device: torch.device,
    progress: NamedProgress,
    alignment: AlignmentModel | None = None,
) -> ImageSet:
    """Collect all pictures at the size of a stage, from the cache if it has them.

    Args:
        pictures: the pictures.
        space: space of the stage.
        extractor: computes the features.
        device: device of the extractor.
        progress: called while pictures are read.
        alignment: embeds the pictures too.

    Raises:
        DataError: naming a picture that is damaged or too small.
        OutputError: if the cache cannot be written.
    """
    models = [extractor] if alignment is None else [extractor, alignment]
    file = pictures.cache_dir / f"{_key(pictures, space, models)}.safetensors"
    names = CACHED if alignment is None else (*CACHED, "embeddings")
    cached = _load(file, names)
    if cached is not None:
        return cached
    builder = ImageSetBuilder(extractor, device, alignment, space)
    what, count = f"{pictures.name}, {space.size_text}", len(pictures)
    for first in range(0, count, READ_AT_A_TIME):
        progress(what, first, count)
        builder.add(pictures.read(range(first, min(first + READ_AT_A_TIME, count)), space))
    progress(what, count, count)
    images = builder.finish()
    with atomic_file(file) as temporary:
        save_file({name: getattr(images, name).contiguous() for name in names}, temporary)
    return images


def _key(
    pictures: RealPictures, space: Space, models: Sequence[FeatureExtractor | AlignmentModel]
) -> str:
    prints = [each.fingerprint() for each in models]
    parts = [*prints, space.size_text, space.resize_kernel]
    if space.has_bands:
        parts.append(f"{space.channels} {space.range} {space.show} {space.colour_map}")
    if stated := pictures.reading.to_dict():
        parts.append(json.dumps(stated))
    return hashlib.sha256("\n".join([*parts, *pictures.digests]).encode()).hexdigest()[:32]


def _load(file: Path, names: Sequence[str]) -> ImageSet | None:
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in names}
    except (OSError, SafetensorError):  # missing or damaged: the pictures are read again
        return None
    return ImageSet(**tensors, probabilities=None)
