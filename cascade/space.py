"""Space: a stage's results: pixels, latents or embeddings, their size, and what the numbers mean.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import TypeIs

from cascade.arguments import real_number, shown, whole_number
from cascade.errors import ContractError
from cascade.resizing import ResizeKernel, quantise

FEWEST_LEVELS = 4  # fewer would leave no picture
Size = tuple[int, int]  # height and width in pixels
Range = tuple[float, float]  # the lower end and the upper one
UNITS_8_BIT = 127.5  # 8-bit steps per unit of [-1, 1]
COLOUR_RANGE: Range = (0.0, 255.0)
MOST_BANDS = 64  # of images that are read from files
Kind = Literal["pixels", "latents", "embeddings"]
ColourMap = Literal["grey", "viridis", "plasma", "cividis", "turbo", "hot", "seismic"]
LOOKS = ("show", "colour_map")  # of a space: they change no number
ENCODER_VALUES = ("encoder", "encoder_name", "encoder_shift", "encoder_scale")


@dataclass(frozen=True, kw_only=True)
class Space:
    """The images that one stage produces and the next one takes.

    Tensors hold pixels in [-1, 1]; latents and embeddings have no bounds, but a mean near 0 and a
    standard deviation near 1 over the training data.

    Attributes:
        size_px: height and width in pixels; one number stands for a square.
        channels: number C of channels of an image, at least 1.
        kind: `pixels`; `latents` of an autoencoder; or `embeddings`, vectors of C numbers that an
            encoder makes of whole images, as images of 1 px.
        range: for pixels, the numbers that -1 and 1 stand for, such as (0, 255) for 8-bit files;
            or one such pair per channel.
        unit: unit of the numbers in `range`, such as `HU`; empty for none.
        resize_kernel: the kernel that resizes training images to this size.
        encoder: for latents and embeddings, hash of the weights of the encoder that makes them;
            empty if it is not known.
        encoder_name: the name of that encoder, if it has one.
        encoder_shift: number that was subtracted from what the encoder gives.
        encoder_scale: number above 0 that the difference was multiplied by.
        show: the bands, counted from 1, that pictures for people show: three as red, green and
            blue, or one; by default all of three channels, else the first one.
        colour_map: the colours in which one band is shown.

    Raises:
        ContractError: if a value is of the wrong kind or out of range.
    """

    size_px: Size | int
    channels: int = 3
    kind: Kind = "pixels"
    range: Range | tuple[Range, ...] = COLOUR_RANGE
    unit: str = ""
    resize_kernel: ResizeKernel = "bicubic"
    show: tuple[int, ...] = ()
    colour_map: ColourMap = "grey"
    encoder: str = ""
    encoder_name: str = ""
    encoder_shift: float = 0.0
    encoder_scale: float = 1.0

    def __post_init__(self) -> None:
        pair = _as_size(self.size_px)
        object.__setattr__(self, "size_px", pair)
        object.__setattr__(self, "channels", whole_number("channels", self.channels))
        choices_of = {"kind": Kind, "resize_kernel": ResizeKernel, "colour_map": ColourMap}
        for name, choices in ((name, get_args(each)) for name, each in choices_of.items()):
            if getattr(self, name) not in choices:
                raise ContractError(
                    f"{name} must be one of {choices}, got {shown(getattr(self, name))}."
                )
        if min(pair) < 1 or self.channels < 1:
            raise ContractError(
                f"an image must have at least 1 px a side and 1 channel, got {pair[1]}x{pair[0]} "
                f"px and {self.channels} channels."
            )
        object.__setattr__(self, "range", _as_ranges(self.range, self.channels))
        object.__setattr__(self, "show", tuple(self.show))
        _check_show(self.show, self.channels, self.colour_map)
        self._check_encoder()

    def _check_encoder(self) -> None:
        shift, scale = self.encoder_shift, self.encoder_scale
        if self.kind == "pixels" and (self.encoder, shift, scale) != ("", 0, 1):
            raise ContractError("pixels have no encoder; leave encoder, its shift and scale out.")
        if not (math.isfinite(shift) and math.isfinite(scale) and scale > 0):
            raise ContractError(
                f"encoder_shift must be a finite number and encoder_scale one above 0, got {shift} "
                f"and {scale}."
            )

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The range of each channel."""
        return self.range if _has_pairs(self.range) else (self.range,) * self.channels

    @property
    def is_colour(self) -> bool:
        """Whether the images are colour pictures in sRGB."""
        return self.kind == "pixels" and self.channels == 3 and self.range == COLOUR_RANGE

    @property
    def has_bands(self) -> bool:
        """Whether the images are bands of measured numbers, not colour pictures."""
        return self.kind == "pixels" and not self.is_colour

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        assert isinstance(self.size_px, tuple)
        return self.size_px

    @property
    def is_bounded(self) -> bool:
        """Whether all numbers are in [-1, 1], so that results are clipped to it."""
        return self.kind == "pixels"

    @property
    def longer_px(self) -> int:
        """The longer side in pixels."""
        return max(self.size)

    @property
    def size_text(self) -> str:
        """The size in words: `64 px`, or `80x48 px` as width x height."""
        height, width = self.size
        return f"{height} px" if height == width else f"{width}x{height} px"

    @property
    def levels(self) -> int | tuple[int, ...]:
        """How many whole numbers the range holds: 256 for (0, 255); one count per pair.

        Raises:
            ContractError: if the ends are not whole numbers, or hold too few to round images to.
        """
        counts = tuple(_levels_of(*ends) for ends in self.ranges)
        return counts if _has_pairs(self.range) else counts[0]

    def resized(self, size_px: Size | int, *, channels: int | None = None) -> Space:
        """The same space at another size, and with another number of channels unless it is None."""
        if channels in (None, self.channels):
            return replace(self, size_px=size_px)
        return replace(self, size_px=size_px, channels=channels, show=(), colour_map="grey")

    def to_unit(self, values: Tensor) -> Tensor:
        """Map numbers in `range` to [-1, 1]; any shape, or (…, C, H, W) if it has several pairs."""
        low, high = self._ends(values)
        return (values.float() - low) / (high - low) * 2 - 1

    def from_unit(self, images: Tensor) -> Tensor:
        """Map numbers in [-1, 1] to `range`; shapes as for `to_unit`."""
        low, high = self._ends(images)
        return (images + 1) / 2 * (high - low) + low

    def _ends(self, images: Tensor) -> tuple[Any, Any]:
        """Both ends of the range: numbers, or (C, 1, 1) if there is one pair per channel."""
        if not _has_pairs(self.range):
            return self.range
        ends = torch.tensor(self.range, dtype=torch.float32, device=images.device)
        low, high = ends[:, :, None, None].unbind(dim=1)  # (C, 1, 1) each
        return low, high

    def quantise(self, images: Tensor) -> Tensor:
        """Round images in [-1, 1] to the values that stand for whole numbers in `range`.

        Raises:
            ContractError: if the range holds too few whole numbers, as `levels`.
        """
        return quantise(images, self.levels)

    def rounded(self, images: Tensor) -> Tensor:
        """Round results in [-1, 1] as files hold them: colours to 8 bits, bands not at all."""
        return images.clamp(-1, 1) if self.has_bands else quantise(images)

    def check(self, images: Tensor) -> None:
        """Check that a batch is (B, C, H, W). H and W may differ from `size`, as those of crops do.

        Raises:
            ContractError: if it has another number of dimensions or channels.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ContractError(
                f"images must be (B, {self.channels}, H, W), got {tuple(images.shape)}."
            )

    def scale_from(self, size: Size) -> int:
        """The whole factor by which an image of another size is upscaled to this size.

        Args:
            size: height and width of the other image in pixels.

        Raises:
            ContractError: if the factor is not a whole number, or not the same for both sides.
        """
        factors = {large / small for large, small in zip(self.size, size, strict=True)}

        scale = factors.pop()
        if factors or scale != round(scale) or scale < 1:
            small, large = (f"{w}x{h}" for h, w in (size, self.size))
            raise ContractError(f"{large} px must be a whole multiple of {small} px.")
        return round(scale)

    def to_dict(self) -> dict[str, Any]:
        """The space as plain values for JSON, without looks and encoders that it has not."""
        values = asdict(self)
        left_out = (() if self.show else LOOKS) + (ENCODER_VALUES if self.kind == "pixels" else ())
        return {name: value for name, value in values.items() if name not in left_out}


def _as_size(size_px: Any) -> Size:
    """Convert one number of pixels, or height and width, to height and width."""
    if isinstance(size_px, Sequence) and len(size_px) == 2 and not isinstance(size_px, str):
        return whole_number("size_px", size_px[0]), whole_number("size_px", size_px[1])
    if isinstance(size_px, Sequence) and not isinstance(size_px, str):
        raise ContractError(
            f"size_px must be a whole number or (height, width), got {len(size_px)} numbers."
        )
    side = whole_number("size_px", size_px)
    return side, side


def _check_show(show: tuple[int, ...], channels: int, colour_map: str) -> None:
    """Check that the bands to show exist, and that a colour map has one."""
    numbers = [whole_number("show", band) for band in show]
    if len(numbers) not in (0, 1, 3) or not all(1 <= band <= channels for band in numbers):
        bands = f"one band or three, each from 1 to {channels}" if channels > 1 else "[1]"
        raise ContractError(f"show must be {bands}; got {list(show)}.")
    if colour_map != "grey" and len(numbers) != 1:
        raise ContractError(
            f"colour_map {colour_map!r} is for one band; show one, such as show=[1]."
        )


def _has_pairs(range: Any) -> TypeIs[tuple[Range, ...]]:
    """Whether a range is a sequence of pairs rather than one pair of numbers."""
    return isinstance(range, Sequence) and len(range) > 0 and isinstance(range[0], Sequence)


def _as_ranges(range: Any, channels: int) -> Range | tuple[Range, ...]:
    """Check a range, and reduce equal pairs to one.

    Raises:
        ContractError: if it is neither a pair nor one pair per channel.
    """
    if not _has_pairs(range) or isinstance(range[0], str):
        return _as_range(range)
    pairs = tuple(map(_as_range, range))
    if len(pairs) != channels:
        raise ContractError(
            f"range must be one pair of numbers or one pair per channel; got {len(pairs)} pairs "
            f"for {channels} channels."
        )
    return pairs[0] if len(set(pairs)) == 1 else pairs


def _as_range(ends: Any) -> Range:
    """Convert the two ends of a range to floats."""
    if not isinstance(ends, Sequence) or isinstance(ends, str) or len(ends) != 2:
        raise ContractError(f"range must be two numbers, the lower one first; got {ends!r}.")
    low, high = (float(real_number("range", end)) for end in ends)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ContractError(
            f"range must be two finite numbers, the lower one first; got ({low:g}, {high:g})."
        )
    return low, high


def _levels_of(low: float, high: float) -> int:
    """How many whole numbers there are from `low` to `high`."""
    if low != round(low) or high != round(high) or high - low < FEWEST_LEVELS - 1:
        raise ContractError(
            f"images cannot be rounded to whole numbers of the range ({low:g}, {high:g}); use a "
            "wider range of whole numbers, or do not round them (quantised=False)."
        )
    return round(high - low) + 1
