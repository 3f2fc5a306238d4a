"""What is given to a pipeline, turned into what its stages take, and back.

Shapes: B images, C channels, h and w pixels.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeVar

import torch
from PIL import Image
from torch import Tensor

from cascade.conditioning.labels import LabelVocabulary
from cascade.diffusion.noise import derive_seed
from cascade.errors import ContractError, nearest
from cascade.imaging.picture import Picture
from cascade.imaging.reading import pil_to_tensor
from cascade.imaging.writing import to_pil

Labels = Mapping[str, str]
PerStage = Any  # one value for all stages, a sequence in their order, or a mapping by name
OutputType = Literal["pil", "pt", "np"]
PictureLike = Image.Image | Sequence[Image.Image] | Picture | Tensor
Settings = TypeVar("Settings")


def per_stage(setting: str, value: PerStage, names: list[str], run: list[str]) -> dict[str, Any]:
    """Spread a setting over the stages that run.

    Args:
        setting: its name, for messages.
        value: one for all stages, a sequence in their order, or a mapping by name; None for none.
        names: of all stages.
        run: of the stages that run, the last of `names`.

    Returns:
        The value of each stage that has one.

    Raises:
        ContractError: for an unknown stage or a wrong number of values.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        unknown = set(value) - set(names)
        if unknown:
            raise ContractError(f"{setting}: no stage {min(unknown)!r}; there are {names}.")
        return {name: each for name, each in value.items() if name in run}
    if isinstance(value, Sequence) and not isinstance(value, str):
        for stages in (run, names):
            if len(value) == len(stages):
                pairs = dict(zip(stages, value, strict=True))
                return {name: each for name, each in pairs.items() if name in run}
        raise ContractError(
            f"{setting}: got {len(value)} values for the {len(run)} stages {', '.join(run)}."
        )
    return dict.fromkeys(run, value)


def make_seeds(count: int, seed: int | None, seeds: Sequence[int] | None) -> list[int]:
    """One seed per image: the given ones, or counted up from the first, which may be drawn.

    Raises:
        ContractError: if the numbers disagree.
    """
    if count < 1:
        raise ContractError(f"num_images must be at least 1, got {count}.")
    if seeds is not None:
        if seed is not None:
            raise ContractError("give seed or seeds, not both.")
        if len(seeds) != count:
            raise ContractError(f"got {len(seeds)} seeds for {count} images.")
        return [int(each) for each in seeds]
    first = secrets.randbelow(2**31) if seed is None else int(seed)
    return list(range(first, first + count))


def choose_labels(
    vocabulary: LabelVocabulary | None,
    labels: Labels | str | Sequence[Labels | str] | None,
    seeds: list[int],
    *,
    draw: bool,
) -> list[dict[str, str]]:
    """One set of labels per image.

    Args:
        vocabulary: of the pipeline, or None without classes.
        labels: of all images, or one per image.
        seeds: of the images.
        draw: whether what is not given is drawn from the image's seed, or left unknown.

    Raises:
        ContractError: for unknown names, or another number of labels than of seeds.
    """
    if vocabulary is None:
        if labels is not None:
            raise ContractError("this pipeline has no classes, but labels were given.")
        return [{} for _ in seeds]
    if labels is None or isinstance(labels, str | Mapping):
        labels = [labels or {}] * len(seeds)
    if len(labels) != len(seeds):
        raise ContractError(f"got {len(labels)} labels for {len(seeds)} images.")
    chosen = []
    for each, seed in zip(labels, seeds, strict=True):
        asked = vocabulary.parse(each) if isinstance(each, str) else dict(each)
        vocabulary.encode(asked)
        drawn = (
            {}
            if not draw
            else {
                field: names[derive_seed(seed, "label", field) % len(names)]
                for field, names in vocabulary.fields.items()
            }
        )
        chosen.append(drawn | asked)
    return chosen


def encode_for(vocabulary: LabelVocabulary | None, labels: list[dict[str, str]]) -> Tensor | None:
    """Indices in one stage's own vocabulary, which may know fewer fields than the pipeline."""
    if vocabulary is None:
        return None
    known = [
        {f: name for f, name in each.items() if name in vocabulary.fields.get(f, ())}
        for each in labels
    ]
    return vocabulary.batch(known)


def to_tensor(image: Image.Image | Sequence[Image.Image] | Tensor) -> Tensor:
    """Images to start from: (B, C, h, w) float32 in [-1, 1].

    Raises:
        ContractError: for tensors of another shape or range, or pictures of different sizes.
    """
    if isinstance(image, Tensor):
        if image.ndim == 3:
            image = image[None]
        low, high = (float(end) for end in image.aminmax()) if image.numel() else (0.0, 0.0)
        in_range = low >= -1.001 and high <= 1.001  # neither holds for NaN
        if image.ndim != 4 or not image.numel() or not in_range:
            raise ContractError(
                f"image tensors must be (B, C, h, w) in [-1, 1], got {tuple(image.shape)} in "
                f"[{low:.3g}, {high:.3g}]."
            )
        return image.float()
    images = [image] if isinstance(image, Image.Image) else list(image)
    if not images or len({each.size for each in images}) > 1:
        raise ContractError("images to start from must all have the same size, at least one.")
    return torch.stack([pil_to_tensor(each) for each in images])


def as_output(images: Tensor, output_type: OutputType) -> Any:
    """Images (B, C, H, W) in [-1, 1] as the caller wants them; see `CascadeOutput`."""
    if output_type == "pt":
        return images
    if output_type == "np":
        return ((images + 1) / 2).permute(0, 2, 3, 1).numpy()
    return to_pil(images)


def made_of(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """An object of settings from keyword arguments.

    Raises:
        ContractError: for an unknown name.
    """
    known = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    for name in values:
        if name not in known:
            raise ContractError(f"unknown setting {name!r}: {nearest(name, known)}")
    return kind(**values)


def of_each(
    image: PictureLike,
    picture_to: Callable[[Picture], Picture],
    tensor_to: Callable[[Tensor], Tensor],
) -> Any:
    """Work on pictures in whatever form they came, and give the results in the same form.

    Args:
        image: a PIL image, a sequence of them, a `Picture`, or a tensor (C, h, w) or (B, C, h, w)
            in [-1, 1].
        picture_to: what is done to a picture.
        tensor_to: what is done to a tensor (C, h, w).

    Raises:
        ContractError: for anything else.
    """
    if isinstance(image, Picture):
        return picture_to(image)
    if isinstance(image, Image.Image):
        return picture_to(Picture.from_pil(image)).to_pil()
    if isinstance(image, Tensor):
        results = torch.stack([tensor_to(each) for each in to_tensor(image)])
        return results if image.ndim == 4 else results[0]
    if isinstance(image, Sequence) and all(isinstance(each, Image.Image) for each in image):
        return [picture_to(Picture.from_pil(each)).to_pil() for each in image]
    raise ContractError(
        f"pictures must be PIL images, Pictures or tensors, got {type(image).__name__}."
    )
