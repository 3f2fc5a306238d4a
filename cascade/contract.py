"""What a stage takes and gives, so that a pipeline can refuse stages that do not fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from cascade.conditioning.low_resolution import ResizeKernel
from cascade.errors import ContractError, nearest

Takes = Literal["noise", "low_res", "grey"]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The numbers that two neighbouring stages must agree on. Values are always in [-1, 1].

    Attributes:
        size_px: side of the image that the stage gives.
        channels: of that image.
        takes: what it is made from: `noise` alone (a base stage), `low_res`, a small image (an
            upsampler), or `grey`, the luminance of an image of its own size (colourisation);
            default: `low_res` if there is a `low_res_px`, else `noise`.
        low_res_px: side of the small image that an upsampler takes; None for other stages.
        resize_kernel: with which training images were made small, both the images of this stage
            and, for an upsampler, its conditioning images.
        quantised: whether conditioning images are rounded to 8 bits, in training and between
            stages.
        augmentation_range: lowest and highest noise-conditioning augmentation level of training.
    """

    size_px: int
    channels: int = 3
    takes: Takes | None = None
    low_res_px: int | None = None
    resize_kernel: ResizeKernel = "bicubic"
    quantised: bool = True
    augmentation_range: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.takes is None:
            object.__setattr__(self, "takes", "noise" if self.low_res_px is None else "low_res")
        self._check_takes()
        if self.size_px < 1 or (self.low_res_px is not None and self.low_res_px < 1):
            raise ContractError(
                f"size_px {self.size_px} and low_res_px {self.low_res_px} must be at least 1."
            )
        low, high = self.augmentation_range
        if not 0 <= low <= high <= 1:
            raise ContractError(
                f"augmentation_range must be 0 <= low <= high <= 1, got ({low}, {high})."
            )
        if self.low_res_px is not None and self.size_px % self.low_res_px:
            raise ContractError(
                f"size_px {self.size_px} must be a whole multiple of low_res_px {self.low_res_px}."
            )

    def _check_takes(self) -> None:
        if self.takes not in get_args(Takes):
            raise ContractError(
                f"unknown takes {self.takes!r}: {nearest(str(self.takes), get_args(Takes))}"
            )
        if (self.takes == "low_res") != (self.low_res_px is not None):
            raise ContractError(
                f"takes {self.takes!r} and low_res_px {self.low_res_px} do not go together: only a "
                "stage that takes low_res has a low_res_px."
            )
        if self.takes == "grey" and self.channels != 3:
            raise ContractError(f"a stage that takes grey gives 3 channels, not {self.channels}.")

    @property
    def takes_image(self) -> bool:
        """Whether the stage is made from an image, and not from noise alone."""
        return self.takes != "noise"

    @property
    def image_channels(self) -> int:
        """Channels of the image that it takes; 0 for a base stage."""
        return {"noise": 0, "grey": 1}.get(str(self.takes), self.channels)

    @property
    def taken(self) -> str:
        """What it takes, in words: `noise`, `64 px` or `grey 256 px`."""
        if self.takes == "grey":
            return f"grey {self.size_px} px"
        return "noise" if self.low_res_px is None else f"{self.low_res_px} px"

    @property
    def scale(self) -> int:
        """How many times larger the given image is than the taken one; 1 without a small image."""
        return 1 if self.low_res_px is None else self.size_px // self.low_res_px

    def check_follows(self, previous: Contract, *, name: str, previous_name: str) -> None:
        """Check that this stage can take what the previous one gives.

        Raises:
            ContractError: naming both stages and the number that disagrees.
        """
        grey = self.takes == "grey"
        size = ("size_px", self.size_px) if grey else ("low_res_px", self.low_res_px)
        pairs = (
            ("size_px", previous.size_px, *size),
            ("channels", previous.channels, "channels", self.image_channels),
            ("resize_kernel", previous.resize_kernel, "resize_kernel", self.resize_kernel),
        )
        for theirs, given, ours, taken in pairs:
            if given != taken:
                raise ContractError(
                    f"stages do not join: {previous_name!r} gives {theirs} {given}, "
                    f"{name!r} takes {ours} {taken}."
                )

    def check_augmentation_level(self, level: float) -> None:
        """Check that a level was seen in training.

        Raises:
            ContractError: if it is outside `augmentation_range`.
        """
        low, high = self.augmentation_range
        if not low <= level <= high:
            raise ContractError(
                f"augmentation level must be in [{low}, {high}], as in training; got {level}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Contract:
        """Read `to_dict`'s values back.

        Raises:
            ContractError: for unknown keys, which a newer version may have written.
        """
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ContractError(
                f"unknown contract keys {sorted(unknown)}; update cascade-diffusion."
            )
        if "augmentation_range" in values:
            low, high = values["augmentation_range"]
            values = values | {"augmentation_range": (low, high)}
        return cls(**values)
