"""Has the previous stage of a chain make images that the next stage trains on.

Each is made from a training image, so that the large image is known: a base stage changes the real
small image a little (SDEdit, Meng et al. 2021, arXiv 2108.01073), an upsampler enlarges a smaller
one, and a colourising stage colours its luminance. The pool is written once, into the run's folder,
in parts that several processes share and an interrupted run goes on with.

Shapes: B images of a part, s pixels of their side.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.inputs import Inputs
from cascade.data.generated_images import GeneratedImages
from cascade.data.training_images import TrainingImages, as_float, epoch_order
from cascade.diffusion.noise import SeededNoise, derive_seed
from cascade.errors import CascadeError, ContractError
from cascade.imaging.writing import to_uint8
from cascade.sampling.walk import Hooks, StartFrom
from cascade.saving.atomic import atomic_file
from cascade.saving.components import weights_digest
from cascade.stage import Run, Stage
from cascade.training.processes import make_accelerator, together

PART_IMAGES = 64
MADE_FROM = "made_from"
logger = logging.getLogger(__name__)


def generated_pool(
    previous: Stage,
    images: TrainingImages,
    folder: Path,
    *,
    condition: str,
    count: int,
    fraction: float,
    strength: tuple[float, float] = (0.1, 0.5),
) -> GeneratedImages:
    """Make the pool, or what is missing of it, and read it.

    Args:
        previous: the stage that makes what the next one takes.
        images: of the next stage.
        folder: of the pool.
        condition: name of the next stage's condition that takes them.
        count: how many to make; rounded up to whole parts.
        fraction: of the samples that shall take one.
        strength: the least and the most that a base stage changes a real image, in (0, 1].

    Raises:
        ContractError: if the stages do not join, or this one is a base stage.
        CascadeError: if the pool in the folder was made by or from something else.
    """
    accelerator = make_accelerator()
    parts = range(-(-count // PART_IMAGES))
    with together():
        if images.contract.condition(condition) is None:
            raise ContractError(f"this stage has no condition {condition!r} to make images for.")
        images.contract.check_follows(
            previous.contract, name="this stage", previous_name="the previous stage"
        )
        made_from = _fingerprint(previous, images, strength)
        for file in folder.glob("*.safetensors"):
            _check_made_from(file, made_from)
        previous = previous.to(accelerator.device).eval()
        for part in parts[accelerator.process_index :: accelerator.num_processes]:
            file = folder / f"{part:06d}.safetensors"
            if _read(file) is None:
                logger.info("images by the previous stage: part %s of %s.", part + 1, len(parts))
                made = _make_part(previous, images, condition, part, strength)
                with atomic_file(file) as temporary:
                    save_file(made, temporary, metadata={MADE_FROM: made_from})
    read = [_read(folder / f"{part:06d}.safetensors") for part in parts]
    whole = [tensors for tensors in read if tensors is not None]
    return GeneratedImages(
        condition,
        torch.cat([tensors["indices"] for tensors in whole]),
        torch.cat([tensors["images"] for tensors in whole]),
        fraction,
    )


def _make_part(
    previous: Stage,
    images: TrainingImages,
    condition: str,
    part: int,
    strength: tuple[float, float],
) -> dict[str, Tensor]:
    """Indices (B,) and images (B, C, h, w) uint8 of one part."""
    total = len(images.source)
    places = range(part * PART_IMAGES, (part + 1) * PART_IMAGES)
    chosen = [
        images.first_readable(epoch_order(images.seed, place // total, total), place % total)
        for place in places
    ]
    indices = [index for index, _, _ in chosen]
    seeds = [derive_seed(images.seed, "generated", place) for place in places]
    small = [sized.smaller[condition] for _, sized, _ in chosen]
    real = torch.stack([as_float(each) for each in small]).to(previous.device)
    inputs = previous.contract.inputs_of(Batch(images=real, seeds=tuple(seeds)))
    inputs = Inputs({**inputs.values, **_annotations(previous, images, indices)})
    hooks = Hooks()
    if not previous.contract.needs_image:
        low, high = strength
        share = SeededNoise([seeds[0]], "strength").uniform().item()
        hooks = Hooks(start_from=StartFrom(real, low + (high - low) * share))
    made = previous.run(seeds, inputs, run=Run(hooks=hooks, precision="auto"))
    return {"indices": torch.tensor(indices), "images": to_uint8(made).cpu()}


def _annotations(
    previous: Stage, images: TrainingImages, indices: list[int]
) -> dict[str, list[dict[str, str]]]:
    """The images' labels as inputs of the previous stage, without classes that it does not have."""
    labels = [images.source.readable_labels(index) for index in indices]
    return {
        each.input_name: [
            {f: label[f] for f, names in each.classes.items() if label.get(f) in names}
            for label in labels
        ]
        for each in previous.conditions
        if each.classes
    }


def _fingerprint(previous: Stage, images: TrainingImages, strength: tuple[float, float]) -> str:
    """A hash of all that the small images depend on, but for the pixels of the training images."""
    contract, source = images.contract, images.source
    settings = [previous.config(), contract.to_dict(), images.seed, strength, PART_IMAGES]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(weights_digest(previous).encode())
    for index in range(len(source)):
        digest.update(f"{source.key(index)}\n".encode())
    return digest.hexdigest()


def _check_made_from(file: Path, made_from: str) -> None:
    """Refuse a part that was made from something else; what cannot be read is made anew."""
    try:
        with safe_open(file, "pt") as opened:
            recorded = (opened.metadata() or {}).get(MADE_FROM)
    except (SafetensorError, OSError):
        return
    if recorded != made_from:
        raise CascadeError(
            f"the small images in {file.parent} were made by another stage, from other images or "
            "with another strength; set this back, or use another folder."
        )


def _read(file: Path) -> dict[str, Tensor] | None:
    try:
        return load_file(file)
    except (SafetensorError, OSError):
        return None
