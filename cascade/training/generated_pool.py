"""Images that the previous stage of a chain makes, for the next stage to train on.

Each is made from a training image, so that the true large image is known: a stage that takes no
image changes the true small image a little (SDEdit, Meng et al. 2021, arXiv 2108.01073); other
stages make it from their usual inputs. The pool is written once, into the run's folder, in parts
that the processes share out among themselves and that an interrupted run completes.

Shapes: B images of a part, C channels, h and w pixels.
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
from cascade.contract import Contract
from cascade.data.fitting import as_float, rounded
from cascade.data.generated_images import GeneratedImages
from cascade.data.training_images import TrainingImages, epoch_order
from cascade.diffusion.noise import SeededNoise, derive_seed
from cascade.errors import CascadeError, ContractError
from cascade.sampling.walk import Hooks, StartFrom
from cascade.saving.atomic import atomic_file
from cascade.saving.components import weights_digest
from cascade.stage import Run, Stage
from cascade.training.processes import make_accelerator, together

PART_IMAGES = 64
FINGERPRINT = "fingerprint"
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
    """Make the missing parts of a pool, and load all of it.

    Args:
        previous: the stage that makes the images.
        images: the training images of the next stage.
        folder: folder of the pool.
        condition: name of the next stage's condition that takes the images.
        count: number of images, at least 1; rounded up to whole parts.
        fraction: share of the training samples that take an image from the pool, in [0, 1].
        strength: smallest and largest change to a true image, in (0, 1], for a previous stage that
            takes no image.

    Raises:
        ContractError: if the stages do not join, or the condition takes no image.
        CascadeError: if the pool in the folder was made by another stage, from other images, or
            with another strength.
    """
    accelerator = make_accelerator()
    parts = range(-(-count // PART_IMAGES))
    with together():
        _check_condition(images.contract, condition)
        images.contract.check_follows(
            previous.contract, name="this stage", previous_name="the previous stage"
        )
        fingerprint = _fingerprint(previous, images, strength)
        for file in folder.glob("*.safetensors"):
            _check_fingerprint(file, fingerprint)
        previous = previous.to(accelerator.device).eval()
        for part in parts[accelerator.process_index :: accelerator.num_processes]:
            file = folder / f"{part:06d}.safetensors"
            if _read(file) is None:
                logger.info("generating images: part %s of %s.", part + 1, len(parts))
                tensors = _make_part(previous, images, condition, part, strength)
                with atomic_file(file) as temporary:
                    save_file(tensors, temporary, metadata={FINGERPRINT: fingerprint})
    contents = [_read(folder / f"{part:06d}.safetensors") for part in parts]
    whole = [tensors for tensors in contents if tensors is not None]
    return GeneratedImages(
        condition,
        torch.cat([tensors["indices"] for tensors in whole]),
        torch.cat([tensors["images"] for tensors in whole]),
        fraction,
    )


def _check_condition(contract: Contract, name: str) -> None:
    """Check that the condition's training images come from pictures, so that others can be."""
    condition = contract.condition(name)
    blank = torch.zeros(contract.space.channels, *contract.space.size)
    if condition is None or condition.of_picture(blank, contract.space) is None:
        raise ContractError(f"this stage has no condition {name!r} to make images for.")


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
    samples = [
        images.first_usable(epoch_order(images.seed, place // total, total), place % total)
        for place in places
    ]
    indices = [sample.index for sample in samples]
    seeds = [derive_seed(images.seed, "generated", place) for place in places]
    small = [sample.sized.smaller[condition] for sample in samples]
    real = torch.stack([as_float(each) for each in small]).to(previous.device)
    texts = _texts(previous, images, indices)
    inputs = previous.contract.inputs_of(Batch(images=real, seeds=tuple(seeds), conditions=texts))
    inputs = Inputs({**inputs.values, **_annotations(previous, images, indices)})
    hooks = Hooks()
    if not previous.contract.needs_image:
        low, high = strength
        share = SeededNoise([seeds[0]], "strength").uniform().item()
        hooks = Hooks(start_from=StartFrom(real, low + (high - low) * share))
    results = previous.run(seeds, inputs, run=Run(hooks=hooks, precision="auto"))
    return {"indices": torch.tensor(indices), "images": rounded(results, previous.space).cpu()}


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


def _texts(previous: Stage, images: TrainingImages, indices: list[int]) -> dict[str, tuple]:
    """The images' texts as conditions of the previous stage, by name of the condition."""
    return {
        each.name: tuple(
            each.of_annotations(images.source.readable_labels(index)) for index in indices
        )
        for each in previous.conditions
        if each.takes_text
    }


def _fingerprint(previous: Stage, images: TrainingImages, strength: tuple[float, float]) -> str:
    """A hash of everything that determines the pool, except the pixels of the training images."""
    contract, source = images.contract, images.source
    settings = [previous.config(), contract.to_dict(), images.seed, strength, PART_IMAGES]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(weights_digest(previous).encode())
    for index in range(len(source)):
        digest.update(f"{source.key(index)}\n".encode())
    return digest.hexdigest()


def _check_fingerprint(file: Path, fingerprint: str) -> None:
    """Refuse a part with another fingerprint; a part that cannot be read is made anew."""
    try:
        with safe_open(file, "pt") as opened:
            recorded = (opened.metadata() or {}).get(FINGERPRINT)
    except (SafetensorError, OSError):
        return
    if recorded != fingerprint:
        raise CascadeError(
            f"the low-resolution images in {file.parent} were made by another stage, from other "
            "images or with another strength; restore those settings, or use another folder."
        )


def _read(file: Path) -> dict[str, Tensor] | None:
    try:
        return load_file(file)
    except (SafetensorError, OSError):
        return None
