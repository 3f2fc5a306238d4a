"""Condition: one piece of information that a network receives besides the noisy image.

A condition knows its recipe key, what training, sampling and evaluation do with it, and how it
enters the network. To add a kind, write one final subclass in a file of its own and enter it into
`CONDITIONS` of `cascade.conditioning.kinds`.

Shapes: B batch, C channels, H and W pixels of the stage's images, h and w of a conditioning image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.inputs import Inputs, Request
from cascade.conditioning.signals import Signals
from cascade.conditioning.slots import Slots
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.space import Size, Space
from cascade.text.encoder import CutText

Vocabulary = Callable[[Sequence[str]], Mapping[str, Sequence[str]]]


@dataclass(frozen=True, kw_only=True)
class Condition(ABC):
    """A kind of condition with its settings, which are saved with the stage.

    Attributes:
        drop: probability in [0, 1] that training hides the condition of an image. Guidance needs a
            condition with a probability above 0. Each condition has a draw of its own, so that an
            image trains without any of them with the product of their probabilities.

    Raises:
        ContractError: if a value is out of range.
    """

    name: ClassVar[str]  # recipe key, name of the signals and of the random stream
    input_name: ClassVar[str]  # name of the user's input that it reads, such as `image`
    negative_name: ClassVar[str] = ""  # input from which guidance pushes away; empty for none
    recipe: ClassVar[type | None] = None  # dataclass of its recipe section; None if it has none
    is_optional: ClassVar[bool] = False  # whether the stage can do without the image that it takes
    takes_text: ClassVar[bool] = False  # whether it is free text, which an encoder reads
    has_dial: ClassVar[bool] = False  # whether `denoise` scales what it tells the network
    files: ClassVar[tuple[str, ...]] = ()  # paths of the files that `write_files` may write

    drop: float = 0.0

    def __post_init__(self) -> None:
        check_share("drop", self.drop)

    # ---- what it is -----------------------------------------------------------------------------

    @abstractmethod
    def slots(self, space: Space) -> Slots:
        """How it enters the network of a stage whose images are in this space."""

    @classmethod
    def of_recipe(cls, options: Any, vocabulary: Vocabulary) -> Condition:
        """Make the condition that a recipe describes.

        Args:
            options: an instance of `cls.recipe`.
            vocabulary: returns the class names in the data by field, for a list of label fields.
        """
        return cls(**asdict(options))

    def config(self) -> dict[str, Any]:
        """The keyword arguments that make the same condition, as plain values for JSON."""
        return asdict(self)

    def check(self, space: Space) -> None:  # noqa: B027  most kinds go with every space
        """Check that the condition fits a stage whose images are in this space.

        Raises:
            ContractError: naming the number that does not fit.
        """

    def image_space(self, space: Space) -> Space | None:
        """The space of the image that it takes from the previous stage; None if it takes none."""
        return None

    def description(self, space: Space) -> str:
        """The image that it takes, in words, such as `64 px`; empty if it takes none."""
        return ""

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        """Class names by label field, in the order of their indices; empty without labels."""
        return {}

    def facts(self) -> dict[str, str]:
        """Lines for a model card, text by heading."""
        return {}

    @property
    def encoded_by(self) -> str | None:
        """Name and hash of the frozen model that makes its signals; None if there is none."""
        return None

    @property
    def encoded_space(self) -> Space | None:
        """The space of what a frozen encoder makes of whole training images; None without one."""
        return None

    def accepts_size(self, size_px: Size, space: Space) -> bool:
        """Whether a pipeline can start at this stage with an image of this height and width."""
        return False

    @property
    def augmentation_range(self) -> tuple[float, float] | None:
        """Lowest and highest noise level of its image in training; None if it has no level."""
        return None

    @property
    def resembles_result(self) -> bool:
        """Whether its image, upscaled to the result's size, holds a first guess of the result."""
        return False

    def first_guess(self, image: Tensor) -> Tensor:
        """The first guess of the result (B, C, H, W) in its image at the result's size."""
        return image

    @property
    def has_colours(self) -> bool:
        """Whether its image, averaged over small areas, has the colours of the result."""
        return False

    @property
    def restores(self) -> bool:
        """Whether training degrades its image, so that results need not agree with it exactly."""
        return False

    @property
    def needs_partner(self) -> bool:
        """Whether its training images are files of their own, which no picture can be made into."""
        return False

    @property
    def fills(self) -> bool:
        """Whether its image holds a part of the result, and the stage makes the rest."""
        return False

    # ---- data -----------------------------------------------------------------------------------

    def partner_space(self, space: Space) -> Space | None:
        """The space of the image that it takes from a pair of images; None if it takes none."""
        return None

    def of_pairs(self) -> Condition:
        """The condition of a stage that trains on pairs; itself if it takes no image of a pair."""
        return self

    def of_picture(self, image: Tensor, space: Space) -> Tensor | None:
        """Make a conditioning image from a whole training picture, before it is cropped.

        Args:
            image: (C, H, W) in [-1, 1], at the stage's size.
            space: space of the stage's images.

        Returns:
            (C', h, w) in [-1, 1], where H is a whole multiple of h; it is cropped together with
            `image`. None if the condition can be made from the crop, or has no image.
        """
        return None

    @property
    def annotation_fields(self) -> list[str]:
        """The annotation fields that `of_annotations` reads."""
        return list(self.classes)

    def of_annotations(self, annotations: Mapping[str, str]) -> Tensor | tuple[str, ...] | None:
        """The entry in a batch for a picture with these annotations; None if it reads none."""
        return None

    def prepare(  # noqa: B027
        self, annotations: Iterable[Mapping[str, str]], folder: Path, device: torch.device
    ) -> None:
        """Do once what training needs of the annotations of all pictures, such as encoding texts.

        Args:
            annotations: the annotations of each picture.
            folder: cache folder for the results, which a later run reads again.
            device: where to compute.
        """

    # ---- files in the folder of a stage ---------------------------------------------------------

    def with_known_texts(self, texts: Iterable[str]) -> Condition:
        """Return a condition that needs no text encoder for these texts.

        A condition without text returns itself.

        Raises:
            CascadeError: if the texts cannot be encoded, or are too many.
        """
        return self

    def write_files(self, folder: Path) -> None:  # noqa: B027  most kinds have none
        """Write what neither the configuration nor the network holds into a stage's folder."""

    def with_files(self, folder: Path) -> Condition:
        """Return the condition with what `write_files` wrote into a stage's folder.

        Raises:
            WeightsError: if a file is damaged.
        """
        return self

    # ---- training and sampling ------------------------------------------------------------------

    @abstractmethod
    def of_batch(self, batch: Batch, space: Space, noise: SeededNoise) -> Signals:
        """The signals of a training batch, with augmentation, and dropped from some images.

        Args:
            batch: training images, at the stage's size or cropped from it.
            space: space of the stage's images.
            noise: one random stream per image, of this condition alone.

        Raises:
            ContractError: if the batch lacks what the condition needs, or has it at another size.
        """

    @abstractmethod
    def of_request(self, request: Request) -> Signals:
        """The signals of one call of the stage.

        Raises:
            ContractError: if the user's input is missing or does not fit.
        """

    def against_request(self, request: Request, own: Signals) -> Signals:
        """The signals of one call of the stage from which guidance pushes away.

        Args:
            request: the call.
            own: what `of_request` returned for it.

        Returns:
            `own` itself if guidance leaves the condition as it is.
        """
        return self.absent(own) if self.drop > 0 else own

    @abstractmethod
    def absent(self, signals: Signals) -> Signals:
        """Signals of the same shapes that carry no information, for dropping and for guidance.

        Args:
            signals: signals of this condition alone.
        """

    def counted_pixels(self, signals: Signals) -> Tensor | None:
        """The pixels that the training loss counts: (B, 1, H, W), 1 or 0; None for all of them.

        Args:
            signals: signals of this condition alone, of a training batch.
        """
        return None

    def known_pixels(self, image: Tensor) -> tuple[Tensor, Tensor] | None:
        """The pixels of the result that its image already holds; None if it holds none.

        Args:
            image: the image that it takes.

        Returns:
            The result (B, C, H, W), of which only these pixels matter, and the mask (B, H, W) bool,
            True at them.
        """
        return None

    def completed(self, value: Any, seeds: Sequence[int], *, draw: bool) -> Any:
        """Read a user's input to a pipeline and fill in what it leaves out.

        Args:
            value: the input in any form that the pipeline accepts; None for no input.
            seeds: one whole number per image.
            draw: whether to draw missing parts from each image's seed or leave them unset.

        Returns:
            One entry per image, or None.

        Raises:
            ContractError: if the value cannot be read.
        """
        return value

    def cuts(self, values: Sequence[Any]) -> dict[str, CutText]:
        """The texts of a completed input that do not reach the network in full, in their parts."""
        return {}

    def result_size(self, inputs: Inputs, previous: Tensor | None, space: Space) -> Size | None:
        """Height and width of the result that follow from the inputs; None if none follow.

        Args:
            inputs: the user's inputs.
            previous: (B, C, h, w), the result of the previous stage; None for the first.
            space: space of the stage's images.

        Raises:
            ContractError: if an input is missing or does not fit.
        """
        return None

    # ---- evaluation -----------------------------------------------------------------------------

    @abstractmethod
    def input_of(self, batch: Batch, space: Space, *, degraded: bool = False) -> Any:
        """The input with which a user would ask for the pictures of a batch.

        Args:
            batch: true pictures.
            space: space of the stage's images.
            degraded: whether to degrade an image as training does, by the seeds of the batch.

        Returns:
            (B, …), or None if the batch does not contain it.
        """

    def deviation(
        self, samples: Tensor, value: Any, space: Space, known: Tensor | None = None
    ) -> dict[str, float]:
        """How far samples are from the `input_of` they were made from, by metric.

        Args:
            samples: (B, C, H, W) in [-1, 1].
            value: what `input_of` returned for their batch.
            space: space of the stage's images.
            known: (B, C, H, W) bool, False at values to leave out; None for none. See
                `Batch.known`.
        """
        return {}


def check_share(name: str, value: float) -> None:
    """Check a probability or another share.

    Raises:
        ContractError: if it is not from 0 to 1.
    """
    if not 0 <= value <= 1:
        raise ContractError(f"{name} must be from 0 to 1, got {value}.")
