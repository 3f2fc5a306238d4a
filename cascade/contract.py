"""Contract: the images that a stage makes and the conditions it takes, to refuse a bad fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.kinds import read_conditions
from cascade.conditioning.slots import Slots
from cascade.errors import ContractError
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.student import Student
from cascade.space import LOOKS, Size, Space

HASH_DIGITS = 64
SHOWN_DIGITS = 12  # of a hash in a message


@dataclass(frozen=True)
class Contract:
    """What a stage must agree on with its neighbours and with the data.

    Args:
        space: size, channels and range of the images that the stage makes.
        conditions: what steers the stage, in the order in which their images are concatenated.
        student: what training has fixed in a distilled stage; None for any other stage.

    Raises:
        ContractError: if two conditions share a name or an input, or a condition does not fit the
            space.
    """

    space: Space
    conditions: tuple[Condition, ...] = ()
    student: Student | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", tuple(self.conditions))
        for attribute, word in (("name", "are called"), ("input_name", "read the input")):
            names = [getattr(each, attribute) for each in self.conditions]
            duplicate = next((name for name in names if names.count(name) > 1), None)
            if duplicate is not None:
                raise ContractError(f"two conditions {word} {duplicate!r}; a stage can have one.")
        for condition in self.conditions:
            condition.check(self.space)

    # ---- asking the conditions ------------------------------------------------------------------

    @property
    def slots(self) -> dict[str, Slots]:
        """How each condition enters the network, by name."""
        return {each.name: each.slots(self.space) for each in self.conditions}

    @property
    def image_spaces(self) -> list[Space]:
        """The spaces of the images that the conditions take from the previous stage."""
        spaces = (each.image_space(self.space) for each in self.conditions)
        return [space for space in spaces if space is not None]

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs that the conditions read."""
        names = [(each.input_name, each.negative_name) for each in self.conditions]
        return [name for pair in names for name in pair if name]

    @property
    def takes_image(self) -> bool:
        """Whether the stage can start from the images of a previous stage."""
        return bool(self.image_spaces)

    @property
    def needs_image(self) -> bool:
        """Whether the stage starts from an image, not from noise alone."""
        return any(
            each.image_space(self.space) is not None and not each.is_optional
            for each in self.conditions
        )

    @property
    def description(self) -> str:
        """The image that the stage takes, in words: `64 px`, `greyscale 256 px`, or `noise`."""
        texts = [each.description(self.space) for each in self.conditions]
        return ", ".join(text for text in texts if text) or "noise"

    @property
    def takes_text(self) -> bool:
        """Whether a condition takes text."""
        return any(each.takes_text for each in self.conditions)

    @property
    def restores(self) -> bool:
        """Whether training degrades an image that the stage takes."""
        return any(each.restores for each in self.conditions)

    @property
    def needs_partner(self) -> bool:
        """Whether the stage trains on pairs, and can be measured on them alone."""
        return any(each.needs_partner for each in self.conditions)

    @property
    def paired_condition(self) -> Condition | None:
        """The condition that takes an image of a pair; None if none does."""
        takers = (each for each in self.conditions if each.partner_space(self.space) is not None)
        return next(takers, None)

    @property
    def has_dial(self) -> bool:
        """Whether `denoise` scales what a condition tells the network."""
        return any(each.has_dial for each in self.conditions)

    @property
    def has_colours(self) -> bool:
        """Whether an image that the stage takes has the colours of its result."""
        return self.space.is_bounded and any(each.has_colours for each in self.conditions)

    @property
    def fills(self) -> bool:
        """Whether the stage was trained to fill holes in an image that it takes."""
        return any(each.fills for each in self.conditions)

    @property
    def enlarges(self) -> bool:
        """Whether the stage takes a smaller picture that its result resembles."""
        images = [each for each in self.conditions if each.image_space(self.space) is not None]
        resemble = len(images) == 1 and images[0].resembles_result and not self.needs_partner
        return resemble and self.scale > 1 and self.space.kind == "pixels"

    @property
    def droppable(self) -> list[Condition]:
        """The conditions that training drops now and then, which guidance needs."""
        return [each for each in self.conditions if each.drop > 0]

    @property
    def scale(self) -> int:
        """The factor from the smallest image that the stage takes to its result; 1 for none."""
        return max(self._scales, default=1)

    @property
    def grid_px(self) -> int:
        """Sides of crops and results are multiples of this, so that all images align exactly."""
        return math.lcm(*self._scales)

    @property
    def _scales(self) -> list[int]:
        images = [each for each in self.image_spaces if each.kind != "embeddings"]
        return [self.space.scale_from(each.size) for each in images]

    def residual_base(self) -> Condition:
        """The condition whose image holds what residuals are added to: it resembles the result.

        Raises:
            ContractError: if there is no such image that is never dropped.
        """
        for each in self.conditions:
            if each.resembles_result and not each.drop:
                return each
        raise ContractError(
            "residual_std is for stages with a conditioning image that resembles the result "
            "and is never dropped."
        )

    def condition(self, name: str) -> Condition | None:
        """The condition with a name; None if there is no such condition."""
        return next((each for each in self.conditions if each.name == name), None)

    def accepts_size(self, size_px: Size) -> bool:
        """Whether a pipeline may start at this stage with an image of this height and width."""
        images = [each for each in self.conditions if each.image_space(self.space) is not None]
        return bool(images) and all(each.accepts_size(size_px, self.space) for each in images)

    def result_size(self, inputs: Inputs, previous: Tensor | None = None) -> Size:
        """Height and width in pixels of the stage's result for these inputs.

        Raises:
            ContractError: if a needed image is missing, does not fit, or the images call for
                results of different sizes.
        """
        sizes = [each.result_size(inputs, previous, self.space) for each in self.conditions]
        sizes = [size for size in sizes if size is not None]
        if len(set(sizes)) > 1:
            texts = " and ".join(f"{width}x{height} px" for height, width in sizes)
            raise ContractError(f"the inputs call for results of different sizes, {texts}.")
        return sizes[0] if sizes else self.space.size

    def known_pixels(
        self, inputs: Inputs, previous: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """The pixels of the result that an input already holds; None if none does.

        Returns:
            The result (B, C, H, W), of which only these pixels matter, and the mask (B, H, W) bool,
            True at them.
        """
        for each in self.conditions:
            image = inputs.get(each.input_name) if previous is None else previous
            if each.image_space(self.space) is not None and image is not None:
                known = each.known_pixels(image)
                if known is not None:
                    return known
        return None

    def check_inputs(self, inputs: Inputs, previous: Tensor | None, count: int) -> None:
        """Check that a condition reads every input, and that each is for `count` images.

        Raises:
            ContractError: naming the input, and the inputs that the stage reads.
        """
        for name in inputs.values:
            if name not in self.input_names:
                readable = ", ".join(self.input_names) or "none"
                raise ContractError(
                    f"this stage has no condition that reads {name!r}; its inputs: {readable}."
                )
        inputs.check_count(count)
        if previous is not None and not self.takes_image:
            raise ContractError("this stage is a base stage and takes no image.")
        if previous is not None and len(previous) != count:
            raise ContractError(f"got {len(previous)} images to start from for {count} seeds.")

    def inputs_of(self, batch: Batch, *, degraded: bool = False) -> Inputs:
        """The inputs from which the stage should make the pictures of a batch.

        Args:
            batch: training images (B, C, H, W) in [-1, 1] with their annotations.
            degraded: whether to degrade the input images as training does.
        """
        return Inputs(
            {
                each.input_name: each.input_of(batch, self.space, degraded=degraded)
                for each in self.conditions
            }
        )

    # ---- neighbours -----------------------------------------------------------------------------

    def check_follows(self, previous: Contract, *, name: str, previous_name: str) -> None:
        """Check that this stage can take the images of the previous one.

        Raises:
            ContractError: naming both stages and the number that disagrees.
        """
        if not self.takes_image:
            raise ContractError(
                f"stages do not fit together: {name!r} is a base stage and takes no image, but "
                f"follows {previous_name!r}."
            )
        for space in self.image_spaces:
            for field in fields(Space):
                if field.name in LOOKS:
                    continue
                theirs, ours = (getattr(each, field.name) for each in (previous.space, space))
                if theirs != ours:
                    raise ContractError(
                        f"stages do not fit together: {previous_name!r} gives {field.name} "
                        f"{_text(theirs)}, {name!r} takes {_text(ours)}."
                    )

    def check_augmentation_level(self, level: float) -> None:
        """Check that training covered a noise level.

        Raises:
            ContractError: if the level is outside a condition's `augmentation_range`.
        """
        for condition in self.conditions:
            if condition.augmentation_range is None:
                continue
            low, high = condition.augmentation_range
            if not low <= level <= high:
                raise ContractError(
                    f"augmentation level must be in [{low}, {high}], as in training; got {level}."
                )

    def check_sampling(self, settings: SamplingSettings) -> None:
        """Check that a stage with these conditions can sample with these settings.

        Raises:
            ContractError: naming the setting that does not fit.
        """
        self.check_augmentation_level(settings.augmentation_level)
        if self.student is not None:
            self.student.check(settings)
        if settings.threshold != "none" and not self.space.is_bounded:
            raise ContractError(
                f"threshold {settings.threshold} is for pixels, which end at -1 and 1; use "
                f"threshold none for {self.space.kind}."
            )
        if settings.temperature != 1 and not self.needs_image:
            raise ContractError(
                f"temperature {settings.temperature} is for stages that take an image; use "
                "temperature 1."
            )
        if settings.denoise != 1 and not self.has_dial:
            raise ContractError(
                f"denoise {settings.denoise} is for stages with the condition 'defects'; use "
                "denoise 1."
            )
        if settings.keep_colours and not self.has_colours:
            raise ContractError(
                "keep_colours true is for stages that upscale an image and were not trained on "
                "pairs; use keep_colours false."
            )
        if settings.guidance != 1 and not self.droppable:
            raise ContractError(
                f"guidance {settings.guidance} needs a condition that was sometimes dropped in "
                "training; use guidance 1."
            )

    @property
    def default_sampling(self) -> SamplingSettings:
        """The sampling settings of a stage that was given none."""
        settings = SamplingSettings(threshold="static" if self.space.is_bounded else "none")
        return settings if self.student is None else self.student.fitted(settings)

    def changed(self, change: Callable[[Condition], Condition]) -> Contract:
        """Return a contract in which each condition is replaced by `change(condition)`."""
        return replace(self, conditions=tuple(change(each) for each in self.conditions))

    # ---- saving ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The contract as plain values for JSON."""
        values = {
            "space": self.space.to_dict(),
            "conditions": {each.name: each.config() for each in self.conditions},
        }
        return values if self.student is None else {**values, "student": self.student.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Contract:
        """Make a contract from the values of `to_dict`.

        Raises:
            ContractError: if the values do not describe a contract.
        """
        unknown = set(values) - {each.name for each in fields(cls)}
        if unknown:
            raise ContractError(
                f"a contract holds space, conditions and student, not {min(unknown)!r}."
            )
        try:
            space, conditions = Space(**values["space"]), read_conditions(values["conditions"])
            student = Student.from_dict(values.get("student"))
        except (TypeError, LookupError, AttributeError) as error:
            raise ContractError(f"these values do not describe a contract: {error}.") from error
        return cls(space, conditions, student)


def _text(value: Any) -> str:
    """The text of a value: width x height for a size, and the beginning of a hash."""
    if isinstance(value, tuple) and all(isinstance(each, int) for each in value):
        return f"{value[1]}x{value[0]}"
    text = str(value)
    return text[:SHOWN_DIGITS] if isinstance(value, str) and len(text) == HASH_DIGITS else text
