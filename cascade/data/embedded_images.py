"""Embeds training images by a frozen encoder, once and before training.

Shapes: B images, H and W pixels, E width of an embedding.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cascade.contract import Contract
from cascade.data.encoded_images import EncodedImages
from cascade.data.source import ImageSource
from cascade.data.training_images import TrainingImages
from cascade.space import Space
from cascade.vision.encoder import VisionFacts
from cascade.vision.encoders import vision_encoder_of

CPU = torch.device("cpu")


def embed_images(
    source: ImageSource,
    space: Space,
    cache: Path,
    *,
    pictures: Space | None = None,
    device: torch.device = CPU,
    **options: Any,
) -> EncodedImages:
    """Embed training images, or find their embeddings in the cache.

    All stages learn from the same embeddings, whatever their size: the encoder sees each picture at
    its own size.

    Args:
        source: the images.
        space: space of the embeddings, which names the encoder; such as `Condition.encoded_space`.
        cache: folder of the caches of all encoders.
        pictures: space of the pictures at any size; None for colour pictures.
        device: where to compute.
        options: arguments of `TrainingImages` about how files are read, such as `range`.

    Raises:
        CascadeError: if the encoder cannot be found, or does not take such pictures.
        DataError: if an option does not fit.
        OutputError: if the cache cannot be written.
    """
    encoder = vision_encoder_of(VisionFacts(space.encoder_name, space.encoder, space.channels))
    any_size = Space(size_px=1) if pictures is None else pictures
    space_seen = replace(any_size, size_px=encoder.seen_px, resize_kernel="bicubic")
    whole = TrainingImages(
        source, Contract(space_seen), flip=(), too_small="enlarge", cache_mib=0, **options
    )
    encoder.to(device)
    try:
        return EncodedImages(whole, space, encoder.encode, cache)
    finally:
        encoder.to(CPU)  # training needs the memory
