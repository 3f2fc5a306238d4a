"""The low-resolution image as a condition, which makes a stage an upsampler.

Shapes: B batch, C channels, H and W pixels of the result, h and w of the low-resolution image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, final, get_args

import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.blur import blur
from cascade.conditioning.condition import Condition, Vocabulary, check_share
from cascade.conditioning.defects import NAME as DEFECTS
from cascade.conditioning.degradation import Degradation
from cascade.conditioning.inputs import Inputs, Request
from cascade.conditioning.noised_image import (
    check_range,
    draw_level,
    dropped,
    noised_image,
    noised_request,
    without_image,
)
from cascade.conditioning.signals import Signals
from cascade.conditioning.slots import Level, Slots
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.mapped_arrays import by_rows
from cascade.resizing import resize, resized_known
from cascade.space import UNITS_8_BIT, Size, Space

Upscaling = Literal["bicubic", "bilinear", "bilinear_corners"]


@dataclass(frozen=True, kw_only=True)
class GeneratedOptions:
    """Low-resolution images that the previous stage generates and training mixes in.

    Attributes:
        fraction: share of the training samples that take a generated image, in [0, 1].
        by: folder of the run or the stage that generates them; None for none.
        images: number of images to generate.
        strength: for a base stage: least and greatest share of its steps that change the true image
            (SDEdit), in (0, 1].

    Raises:
        ContractError: if a value is out of range.
    """

    fraction: float = 0.0
    by: str | None = None
    images: int = 10_000
    strength: tuple[float, float] = (0.1, 0.5)

    def __post_init__(self) -> None:
        check_share("generated.fraction", self.fraction)
        low, high = self.strength
        if self.images < 1 or not 0 < low <= high <= 1:
            raise ContractError(
                "generated.images must be at least 1 and generated.strength within 0 and 1, low "
                f"end first and above 0; got {self.images} and ({low}, {high})."
            )


@dataclass(frozen=True, kw_only=True)
class LowResolutionOptions:
    """The recipe section of the low-resolution image; see `LowResolution`.

    Attributes:
        generated: low-resolution images that the previous stage generates and training mixes in;
            None for none.
    """

    size_px: int | tuple[int, int]
    quantised: bool = True
    augmentation_range: tuple[float, float] = (0.0, 0.0)
    blur_probability: float = 0.0
    degradation: Degradation | None = None
    drop: float = 0.0
    upscaling: Upscaling = "bicubic"
    generated: GeneratedOptions | None = None


@final
@dataclass(frozen=True, kw_only=True)
class LowResolution(Condition):
    """A smaller image of the same content.

    Attributes:
        size_px: height and width in pixels; one number stands for a square. The stage's size is a
            whole multiple of it.
        quantised: whether it is rounded to the whole numbers of the space's range, in training and
            in sampling.
        augmentation_range: lowest and highest level of noise-conditioning augmentation in training,
            within [0, 1]. The level is drawn per image and passed to the network.
        blur_probability: probability in [0, 1] that training blurs it, as in CDM.
        degradation: how training degrades it, after Real-ESRGAN; None for not at all.
        drop: probability in [0, 1] that training hides it; above 0, guidance can use it.
        upscaling: how it is brought to the size of the result: `bicubic`, after noise was added;
            or, before noise is added, `bilinear` (as in guided diffusion) or `bilinear_corners`,
            which maps the centres of corner pixels onto each other (as in DeepFloyd IF).
        paired: whether training takes it from a file of its own instead of downscaling the large
            image, so that no kernel connects the two.

    Raises:
        ContractError: if a value is out of range.
    """

    name = "low_resolution"
    input_name = "image"
    recipe = LowResolutionOptions

    size_px: int | Size
    quantised: bool = True
    augmentation_range: tuple[float, float] = (0.0, 0.0)
    blur_probability: float = 0.0
    degradation: Degradation | None = None
    drop: float = 0.0
    upscaling: Upscaling = "bicubic"
    paired: bool = False

    def __post_init__(self) -> None:
        size, levels = self.size_px, self.augmentation_range
        pair = (size, size) if isinstance(size, int) else (size[0], size[1])
        object.__setattr__(self, "size_px", pair)
        object.__setattr__(self, "augmentation_range", (levels[0], levels[1]))
        if isinstance(self.degradation, Mapping):
            object.__setattr__(self, "degradation", Degradation(**self.degradation))
        if min(pair) < 1:
            raise ContractError(f"the low-resolution size must be at least 1 px, got {size}.")
        if self.upscaling not in get_args(Upscaling):
            raise ContractError(
                f"upscaling must be one of {get_args(Upscaling)}, got {self.upscaling!r}."
            )
        check_range(self.augmentation_range)
        check_share("blur_probability", self.blur_probability)
        super().__post_init__()

    @classmethod
    def of_recipe(cls, options: LowResolutionOptions, vocabulary: Vocabulary) -> LowResolution:
        return cls(**{key: value for key, value in asdict(options).items() if key != "generated"})

    def config(self) -> dict[str, Any]:
        config = super().config()
        if self.upscaling == "bicubic":  # it says nothing
            del config["upscaling"]
        if not self.paired:
            del config["paired"]
        return config

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        assert isinstance(self.size_px, tuple)
        return self.size_px

    @property
    def resembles_result(self) -> bool:
        return True

    @property
    def has_colours(self) -> bool:
        return not self.paired

    @property
    def restores(self) -> bool:
        return self.degradation is not None or self.paired

    @property
    def needs_partner(self) -> bool:
        return self.paired

    def partner_space(self, space: Space) -> Space:
        return self.image_space(space)

    def of_pairs(self) -> LowResolution:
        return replace(self, paired=True)

    def check(self, space: Space) -> None:
        if self.paired and self.degradation is not None:
            raise ContractError(
                "degradation makes low-resolution images of the large ones, but those of pairs are "
                "files; leave the degradation out."
            )
        space.scale_from(self.size)
        _ = self.quantised and space.levels
        if self.degradation is not None and space.channels != 3:
            raise ContractError(
                f"degradation is for images of 3 channels, this stage has {space.channels}."
            )

    def slots(self, space: Space) -> Slots:
        return Slots(channels=space.channels, vector=Level())

    def image_space(self, space: Space) -> Space:
        return space.resized(self.size)

    def description(self, space: Space) -> str:
        return self.image_space(space).size_text

    def accepts_size(self, size_px: Size, space: Space) -> bool:
        return size_px == self.size

    def result_size(self, inputs: Inputs, previous: Tensor | None, space: Space) -> Size:
        image = inputs.start_image(self.input_name, previous, self.description(space))
        space.check(image)
        scale = space.scale_from(self.size)
        return image.shape[-2] * scale, image.shape[-1] * scale

    def of_picture(self, image: Tensor, space: Space) -> Tensor | None:
        if self.paired:
            return None
        return self._rounded(resize(image[None], self.size, space.resize_kernel), space)[0]

    def of_batch(self, batch: Batch, space: Space, noise: SeededNoise) -> Signals:
        image = self.input_of(batch, space, degraded=True)
        if self.blur_probability > 0:
            image = blur(image, noise.uniform(2), self.blur_probability)
        level = draw_level(self.augmentation_range, noise)
        image, scale = self._upscaled(image, space.scale_from(self.size))
        signals = noised_image(self.name, image, level, noise, scale=scale)
        return dropped(signals, self.absent(signals), self.drop, noise)

    def of_request(self, request: Request) -> Signals:
        assert request.image is not None, "result_size checks it"
        image = self._rounded(request.image.to(request.device).float(), request.space)
        image, scale = self._upscaled(image, request.space.scale_from(self.size))
        return noised_request(self.name, image, request, scale=scale)

    def absent(self, signals: Signals) -> Signals:
        return without_image(signals)

    def input_of(self, batch: Batch, space: Space, *, degraded: bool = False) -> Tensor:
        """The low-resolution images (B, C, h, w), made from the images unless the batch has them.

        Raises:
            ContractError: if those of the batch have another size.
        """
        scale = space.scale_from(self.size)
        height, width = (side // scale for side in batch.images.shape[-2:])
        image = batch.conditions.get(self.name)
        if image is None and self.paired:
            raise ContractError(
                "this stage was trained on pairs, so its low-resolution images cannot be made from "
                "the large ones; give pairs."
            )
        if image is None:
            image = resize(batch.images, (height, width), space.resize_kernel)
        if tuple(image.shape[-2:]) != (height, width):
            raise ContractError(
                f"low-resolution images must be {width}x{height} px, got "
                f"{image.shape[-1]}x{image.shape[-2]}."
            )
        image = self._rounded(image, space)
        if degraded and self.degradation is not None:
            kernel = space.resize_kernel
            image, batch.shared[DEFECTS] = self.degradation.degrade(
                batch.images, image, kernel, batch.seeds
            )
            image = self._rounded(image, space)
        return image

    def deviation(
        self, samples: Tensor, value: Any, space: Space, known: Tensor | None = None
    ) -> dict[str, float]:
        """Mean squared error of the downscaled samples, in squared 8-bit units.

        Crops of larger images differ a little at their edges, where the kernel saw more of the
        image when it was downscaled. Pairs have no such kernel, and are not measured.
        """
        if self.paired:
            return {}
        height, width = value.shape[-2:]
        downscaled = self._rounded(resize(samples, (height, width), space.resize_kernel), space)
        error = (downscaled - self._rounded(value, space)) ** 2
        if known is not None:
            error = error[resized_known(known, (height, width), space.resize_kernel)]
        if error.numel() == 0:  # nothing is known
            return {}
        return {"low_res_consistency": float(error.cpu().double().mean()) * UNITS_8_BIT**2}

    def _upscaled(self, image: Tensor, scale: int) -> tuple[Tensor, int]:
        """Upscale images (B, C, h, w) unless that follows the noise; returns what is left to do."""
        if self.upscaling == "bicubic":
            return image, scale
        size = [side * scale for side in image.shape[-2:]]
        corners = self.upscaling == "bilinear_corners"
        return F.interpolate(image, size, mode="bilinear", align_corners=corners), 1

    def _rounded(self, image: Tensor, space: Space) -> Tensor:
        if not self.quantised:
            return by_rows(lambda rows: rows.clamp(-1, 1), image)
        return by_rows(space.quantise, image)
