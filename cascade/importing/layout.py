"""Layout: how another project stores a network, and the stage that is made of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from cascade.arguments import whole_number
from cascade.contract import Contract
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, nearest
from cascade.networks.adm_layers import AttentionOrder
from cascade.networks.backbone_network import NetworkShape

NoiseScheduleName = Literal["linear", "cosine"]


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a user states about weights beside the weights themselves.

    Attributes:
        size_px: side of the images in pixels; None if the source states it, or published weights
            have these shapes.
        low_size_px: side of an upsampler's low-resolution images in pixels, likewise.
        heads: number of attention heads, instead of `head_channels`; None for that of the published
            weights with these shapes, or else as many as have 64 channels.
        head_channels: number of channels of an attention head, likewise.
        attention_order: order of queries, keys and values; None for that of the published weights
            with these shapes, or else `legacy`.
        noise_schedule: `linear` or `cosine`; None for that of the published weights with these
            shapes, or else `linear`.
        class_names: names of the classes in the order of their numbers; None for the numbers.
        text_encoder: names the text encoder; see `cascade.text.encoders.find_encoder`. None for the
            one that the weights were trained with.
        train_steps: number of timesteps in training; None for that of the published weights with
            these shapes, or else 1000.
        rescale_timesteps: whether the network takes timesteps as if there were 1000; None for no,
            unless the published weights with these shapes do.

    Raises:
        ContractError: if a number is too low, or a value is not one of its choices.
    """

    size_px: int | None = None
    low_size_px: int | None = None
    heads: int | None = None
    head_channels: int | None = None
    attention_order: AttentionOrder | None = None
    noise_schedule: NoiseScheduleName | None = None
    class_names: Sequence[str] | None = None
    text_encoder: str | None = None
    train_steps: int | None = None
    rescale_timesteps: bool | None = None

    def __post_init__(self) -> None:
        for name in ("size_px", "low_size_px", "heads", "head_channels"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), low=1)
        if self.train_steps is not None:
            whole_number("train_steps", self.train_steps, low=2)
        choices = {"attention_order": AttentionOrder, "noise_schedule": NoiseScheduleName}
        for name, kinds in choices.items():
            value = getattr(self, name)
            if value is not None and value not in get_args(kinds):
                raise ContractError(f"{name} must be one of {get_args(kinds)}, got {value!r}.")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> ImportOptions:
        """Make options of keyword arguments.

        Raises:
            ContractError: for an unknown name, or a value that is not allowed.
        """
        names = [each.name for each in fields(cls)]
        for name in options:
            if name not in names:
                raise ContractError(f"import_stage has no option {name!r}: {nearest(name, names)}")
        return cls(**options)

    def check_only(self, allowed: Sequence[str], layout: str) -> None:
        """Check that nothing is stated that a layout does not use.

        Args:
            allowed: names of the options that it uses.
            layout: the layout in words.

        Raises:
            ContractError: naming the first other option that has a value.
        """
        for each in fields(self):
            if getattr(self, each.name) is not None and each.name not in allowed:
                raise ContractError(
                    f"{each.name} has no effect on {layout}; leave it out (these have: "
                    f"{', '.join(allowed)})."
                )


@dataclass(frozen=True)
class Imported:
    """An imported stage.

    Attributes:
        stage: the stage.
        remarks: what was read, assumed or left out, a sentence each.
    """

    stage: DiffusionStage
    remarks: tuple[str, ...]


class Layout(ABC):
    """A way in which another project stores a network."""

    name: ClassVar[str]  # in words, for messages
    options: ClassVar[tuple[str, ...]]  # the fields of `ImportOptions` that it uses

    @abstractmethod
    def fits(self, source: Path) -> bool:
        """Whether a file or a folder has this layout, as far as its names and configs show."""

    @abstractmethod
    def read(self, source: Path, options: ImportOptions) -> Imported:
        """Make the stage.

        Args:
            source: a file or a folder that this layout fits.
            options: what the user states.

        Raises:
            CascadeError: if weights are missing, damaged, pickled or of another layout, or the
                options do not fit them.
        """


def class_names(options: ImportOptions, count: int) -> list[str]:
    """The names of classes: those that the user states, or else their numbers.

    Raises:
        ContractError: if there are not as many names as classes.
    """
    if options.class_names is None:
        return [str(number) for number in range(count)]
    names = list(options.class_names)
    if len(names) != count:
        raise ContractError(f"these weights have {count} classes, got {len(names)} class names.")
    return names


def network_shape(contract: Contract, out_channels: int) -> NetworkShape:
    """Inputs and outputs of the network of a stage with a contract."""
    return NetworkShape(
        image_channels=contract.space.channels,
        out_channels=out_channels,
        size=contract.space.size,
        slots=contract.slots,
    )
