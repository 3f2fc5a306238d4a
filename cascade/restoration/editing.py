"""Fills a hole of a picture with a chain of stages; nothing outside the hole changes.

A chain that starts from noise was not trained to fill holes. At every step of every stage, the
known pixels replace what the network draws there, and the first stage goes over its steps several
times, so that the rest fits them (RePaint, Lugmayr et al. 2022, arXiv 2201.09865). A stage that was
trained with a mask (Palette, Saharia et al. 2021, arXiv 2111.05826) sees the hole, and needs each
step once. So does an upsampler, which is given the picture at its small size, where the hole is
filled smoothly from around it: enough for scratches, of which little is left at that size. Each
later stage knows the pixels of the true picture at its own size.

With a strength below 1, all stages start from the picture with noise (SDEdit, Meng et al. 2021,
arXiv 2108.01073), so that the hole keeps some of what it shows.

Shapes: B results, C channels, H and W pixels of the last stage's images, h and w of another's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cascade.arguments import flag, real_number, whole_number
from cascade.conditioning.filling import filled
from cascade.conditioning.mask import with_opacity
from cascade.contract import Contract
from cascade.errors import ContractError, SettingsError
from cascade.resizing import resize
from cascade.restoration.holes import is_wide, reduced
from cascade.restoration.windows import Box, Frame
from cascade.sampling.resampling import Resampling
from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks, Known, StartFrom
from cascade.space import Size
from cascade.stage import Stage

USUAL = 5  # resamplings, and length of their jumps
THIN = 2  # pixels of the small picture: of holes up to this width, enough is left around them
PICTURES = (0.0, 255.0)  # the range of stages that make pictures


@dataclass(frozen=True, kw_only=True)
class Editing:
    """How to edit a picture. Sampling settings belong to the stages.

    Attributes:
        strength: share of the steps that are taken, in (0, 1]; below 1, the hole starts from what
            it shows, and keeps the more of it the lower the value is.
        resamplings: how often a stage that starts from noise goes over each step, where pixels
            around the hole are known; 1 is quick, and its results fit them less well. Default: 5.
        jump_length: number of steps that it goes back at a time; default: 5.
        window_px: longer side of the part of the picture that the stages see, in pixels of the
            picture; default: as much as they can see.
        feather_px: width in pixels of the band inside the hole in which the new picture fades in;
            0 for a hard edge.
        grow_px: number of pixels by which the hole grows at all sides.
        stays_grey: whether colours that are drawn become grey if all the rest of the picture is.

    Raises:
        ContractError: if a value is of the wrong kind or out of range.
        SettingsError: if the strength is out of range, or two values exclude each other.
    """

    strength: float = 1.0
    resamplings: int | None = None
    jump_length: int | None = None
    window_px: int | None = None
    feather_px: int = 0
    grow_px: int = 0
    stays_grey: bool = False

    def __post_init__(self) -> None:
        strength = real_number("strength", self.strength)
        if not 0 < strength <= 1:
            raise SettingsError(f"strength must be above 0 and at most 1, got {strength}.")
        _ = self.resampling
        if self.window_px is not None:
            whole_number("window_px", self.window_px, low=1)
        whole_number("feather_px", self.feather_px, low=0)
        whole_number("grow_px", self.grow_px, low=0)
        object.__setattr__(self, "stays_grey", flag("stays_grey", self.stays_grey))
        if self.resamplings == 1 and self.jump_length is not None:
            raise SettingsError("jump_length has no effect with resamplings 1; leave it out.")

    @property
    def resampling(self) -> Resampling:
        """How often stages that start from noise go over their steps."""
        values = {"resamplings": self.resamplings, "jump_length": self.jump_length}
        return Resampling(**{n: USUAL if each is None else each for n, each in values.items()})

    def remark(self, first: Contract, hole: Tensor) -> str:
        """What to tell the user about a hole, to follow the picture's name; empty for nothing.

        Args:
            first: contract of the first stage.
            hole: (h, w) bool, the hole of the whole picture.
        """
        side_px = THIN * first.scale
        is_filled = self.strength == 1 and first.enlarges and not hole.all()
        if not is_filled or not is_wide(hole, side_px + 1):
            return ""
        return (
            f"has a hole wider than {side_px} px, which an upsampler fills smoothly; a model "
            "that was trained with a mask adds detail"
        )

    def check_resampling(self, reason: str) -> None:
        """Check that nothing is said about going over steps again, where no stage does it.

        Args:
            reason: why no stage does it.

        Raises:
            SettingsError: naming the value that has no effect.
        """
        for name in ("resamplings", "jump_length"):
            if getattr(self, name) is not None:
                raise SettingsError(f"{name} has no effect, because {reason}; leave it out.")


def check_can_edit(
    contracts: Sequence[Contract], editing: Editing, *, is_whole: bool = False
) -> None:
    """Check that a chain can fill holes.

    Args:
        contracts: contracts of the stages, first stage first.
        editing: how to edit.
        is_whole: whether the hole may be the whole picture, so that there are no known pixels.

    Raises:
        ContractError: naming what the chain takes instead.
        SettingsError: naming the student in it, or a value that has no effect on it.
    """
    first = contracts[0]
    if first.needs_image and not (first.fills or first.enlarges):
        raise ContractError(
            f"this pipeline takes {first.description}, so it cannot edit images; editing needs a "
            "first stage that starts from noise, that upscales, or that was trained with a mask."
        )
    ranges = {
        pair for each in contracts if each.space.kind == "pixels" for pair in each.space.ranges
    }
    if ranges - {PICTURES}:
        raise ContractError(
            "editing is for colour images, not for stages that make bands of measured values."
        )
    other = next((each.space for each in contracts if each.space.kind != "pixels"), None)
    if other is not None:
        raise ContractError(f"editing needs stages that make pixels; one makes {other.kind}.")
    if first.needs_image:
        reason = "was trained with a mask" if first.fills else "starts from an image"
        editing.check_resampling(f"the first stage {reason} and does not repeat its steps")
    student, resamplings = first.student, editing.resampling.resamplings
    if student is not None and not first.needs_image and not is_whole and resamplings > 1:
        teacher = f" {student.teacher}" if student.teacher else ""
        raise SettingsError(
            f"this pipeline starts with a {student.text}, which cannot repeat its steps; edit "
            f"with its teacher{teacher}, or with resamplings 1."
        )


def check_without_surroundings(first: Contract, editing: Editing) -> None:
    """Check that a chain can edit where no pixel around the hole is known.

    Args:
        first: contract of the first stage.
        editing: how to edit.

    Raises:
        SettingsError: if it would enlarge a picture of which nothing is known.
    """
    if editing.strength == 1 and first.enlarges:
        raise SettingsError(
            "the hole has no surroundings that this pipeline could upscale; mask less of the "
            "image, widen the window, lower the strength, or use a pipeline that starts from "
            "noise or was trained with a mask."
        )


def check_samplers(stages: Iterable[Stage], editing: Editing, *, is_whole: bool = False) -> None:
    """Check that all stages can edit with their samplers, before the first of them starts.

    Args:
        stages: the stages, with the sampling settings of the edit.
        editing: how to edit.
        is_whole: as for `check_can_edit`.

    Raises:
        SettingsError: naming what a sampler cannot do, and what to use instead.
    """
    goes_back = editing.resampling.resamplings > 1 and not is_whole
    for stage in stages:
        stage.check_walk(
            goes_back=goes_back and not stage.contract.needs_image,
            from_image=editing.strength < 1,
        )


@dataclass(frozen=True)
class Edit:
    """A window of one picture and its hole, at the size of the last stage.

    Attributes:
        image: (1, C, H, W) in [-1, 1]; in the hole it holds what the picture shows there, or what
            is around it.
        hole: (H, W) bool.
        last: contract of the last stage.
        editing: how to edit.
    """

    image: Tensor
    hole: Tensor
    last: Contract
    editing: Editing

    def size_for(self, stage: Stage) -> Size:
        """Height and width of the images that a stage makes."""
        height, width = (
            side * own // whole
            for side, own, whole in zip(
                self.hole.shape, stage.space.size, self.last.space.size, strict=True
            )
        )
        return height, width

    def input_image(self, stage: Stage) -> Tensor | None:
        """The input of a first stage that takes an image; None for one that starts from noise.

        It is (1, C + 1, h, w) for one that was trained with a mask, and the small picture
        (1, C, h, w) for an upsampler.
        """
        contract = stage.contract
        if not contract.needs_image:
            return None
        if contract.fills:
            image, hole = self._at(stage)
            return with_opacity(image, hole[None, None])
        height, width = self.size_for(stage)
        small = (height // contract.scale, width // contract.scale)
        return resize(self.image, small, stage.space.resize_kernel)

    def hooks(self, stage: Stage, count: int, hooks: Hooks) -> Hooks:
        """Add to the hooks of a stage what it knows of the picture.

        Args:
            stage: a stage of the chain.
            count: number of images that it makes.
            hooks: callback and progress.
        """
        image, hole = self._at(stage)
        if self.editing.strength < 1:
            start = StartFrom(image.expand(count, -1, -1, -1), self.editing.strength)
            hooks = replace(hooks, start_from=start)
        if hole.all():
            return hooks
        hooks = replace(hooks, known=Known(image, ~hole))
        if not stage.contract.needs_image:
            hooks = replace(hooks, resampling=self.editing.resampling)
        return hooks

    def tiles(self, stage: Stage) -> Tiles | None:
        """How to cut the images of a stage that makes any size; None for the others."""
        size_px = self.size_for(stage)
        if size_px == stage.space.size:
            return None
        return Tiles(stage.default_tile_px(size_px))

    def _at(self, stage: Stage) -> tuple[Tensor, Tensor]:
        """Image (1, C, h, w) and hole (h, w) at the size of a stage."""
        size_px = self.size_for(stage)
        image = resize(self.image, size_px, stage.space.resize_kernel)
        return image, reduced(self.hole, size_px)


def prepare_edit(
    contracts: Sequence[Contract], image: Tensor, hole: Tensor, editing: Editing
) -> tuple[Edit, Box]:
    """Cut the window around a hole, and bring it to the size of the last stage.

    Args:
        contracts: contracts of the stages, first stage first.
        image: (C, h, w) in [-1, 1], a picture of any size.
        hole: (h, w) bool, with at least one pixel.
        editing: how to edit.

    Returns:
        What the stages work on, and the window in the picture.

    Raises:
        ContractError: if the chain cannot edit such a picture.
    """
    check_can_edit(contracts, editing, is_whole=bool(hole.all()))
    space = contracts[-1].space
    first = contracts[0]
    is_fixed = not first.needs_image
    multiple_px = 1
    if not is_fixed:
        multiple_px = first.grid_px * (space.size[0] // first.space.size[0])
    box = Frame(space, is_fixed, multiple_px, editing.window_px).window(hole)
    image = _with_channels(image, space.channels)
    known = ~hole if editing.strength == 1 else torch.ones_like(hole)
    part, is_known = box.cut(image, 0.0)[None], box.cut(known[None], False)[None]
    part = filled(part, is_known)
    part_hole = box.cut(hole[None], True)[0]
    size_px = space.size if is_fixed else (box.height, box.width)
    edit = Edit(
        resize(part, size_px, space.resize_kernel),
        reduced(part_hole, size_px),
        contracts[-1],
        editing,
    )
    return edit, box


def _with_channels(image: Tensor, channels: int) -> Tensor:
    """A picture with as many channels as a stage has: grey becomes colour.

    Raises:
        ContractError: if it has others.
    """
    if len(image) == channels:
        return image.float().cpu()
    if len(image) == 1 and channels == 3:
        return image.float().cpu().expand(3, -1, -1)
    raise ContractError(
        f"this pipeline edits images of {channels} channels, got one of {len(image)}."
    )
