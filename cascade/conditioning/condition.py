"""Condition: one thing that a stage is told, from its recipe key to its place in the network.

A new kind of condition is one final subclass in a file of its own, and an entry in `CONDITIONS` of
`cascade.conditioning.kinds`. Nothing else in the package names a kind.

Shapes: B batch, C channels, H and W pixels of the stage's images, h and w of a conditioning image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.inputs import Inputs, Request
from cascade.conditioning.signals import Signals
from cascade.diffusion.noise import SeededNoise
from cascade.space import Size, Space

Vocabulary = Callable[[Sequence[str]], Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class Classes:
    """A vector slot of indices (B, F), one per field; -1 stands for "any".

    Attributes:
        sizes: number of classes of each field.
    """

    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Level:
    """A vector slot of one number (B,) in [0, 1] per image."""


@dataclass(frozen=True)
class Dense:
    """A vector slot of embeddings (B, width) from elsewhere.

    Attributes:
        width: of an embedding.
    """

    width: int


VectorSlot = Classes | Level | Dense


@dataclass(frozen=True, kw_only=True)
class Slots:
    """How a condition enters the network.

    Attributes:
        channels: concatenated to the noisy image; 0 for none.
        vector: embedded and added to the embedding of the time; None for none.
        tokens: width of the tokens that are attended to; 0 for none.
    """

    channels: int = 0
    vector: VectorSlot | None = None
    tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Condition(ABC):
    """A kind of condition with its settings, which are saved with the stage.

    Attributes:
        drop: probability, in training, that an image loses the condition. Guidance needs it.
    """

    name: ClassVar[str]  # recipe key, name of the signals and of the random stream
    input_name: ClassVar[str]  # of what a user gives, such as `image`
    recipe: ClassVar[type]  # dataclass of what the recipe states

    drop: float = 0.0

    # ---- what it is -----------------------------------------------------------------------------

    @abstractmethod
    def slots(self, space: Space) -> Slots:
        """How it enters the network of a stage that gives this space."""

    @classmethod
    def of_recipe(cls, options: Any, vocabulary: Vocabulary) -> Condition:
        """Make the condition that a recipe describes.

        Args:
            options: an instance of `cls.recipe`.
            vocabulary: collects the class names of label fields from the data.
        """
        return cls(**asdict(options))

    def config(self) -> dict[str, Any]:
        """Plain values with which the class can be called again."""
        return asdict(self)

    def check(self, space: Space) -> None:  # noqa: B027  most kinds go with every space
        """Check that it goes with the images of a stage.

        Raises:
            ContractError: naming the number that does not fit.
        """

    def image_space(self, space: Space) -> Space | None:
        """The space of the image that it takes from the stage before; None if it takes none."""
        return None

    def description(self, space: Space) -> str:
        """The image that it takes, in words, such as `64 px`; empty if it takes none."""
        return ""

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        """For each of its label fields the class names, in the order of their indices."""
        return {}

    def facts(self) -> dict[str, str]:
        """What a model card says about it, by heading."""
        return {}

    def accepts_size(self, size_px: Size, space: Space) -> bool:
        """Whether a pipeline may start here with an image of that height and width."""
        return False

    @property
    def augmentation_range(self) -> tuple[float, float] | None:
        """Lowest and highest noise level of its image in training; None if it has no level."""
        return None

    @property
    def resembles_result(self) -> bool:
        """Whether its image, enlarged, is a first guess of the result."""
        return False

    @property
    def mends(self) -> bool:
        """Whether training damages its image, so that results should not agree with it exactly."""
        return False

    # ---- data -----------------------------------------------------------------------------------

    def of_picture(self, image: Tensor, space: Space) -> Tensor | None:
        """What is made of a whole training picture before it is cropped.

        Args:
            image: (C, H, W) in [-1, 1], at the stage's size.
            space: of the stage.

        Returns:
            (C', h, w) in [-1, 1] with H a whole multiple of h, which is cropped at the same place;
            None if there is nothing to make, or crops will do.
        """
        return None

    @property
    def annotation_fields(self) -> list[str]:
        """The fields of annotations that `of_annotations` reads."""
        return list(self.classes)

    def of_annotations(self, annotations: Mapping[str, str]) -> Tensor | None:
        """What the annotations of a training picture say; None if it needs none of them."""
        return None

    # ---- training and sampling ------------------------------------------------------------------

    @abstractmethod
    def of_batch(self, batch: Batch, space: Space, noise: SeededNoise) -> Signals:
        """The signals of a training batch: drawn, disturbed, and dropped from some images.

        Args:
            batch: of training images.
            space: of the stage.
            noise: the condition's own random stream of each image.

        Raises:
            ContractError: if the batch lacks something, or it has another size.
        """

    @abstractmethod
    def of_request(self, request: Request) -> Signals:
        """The signals of one call of the stage.

        Raises:
            ContractError: if the user's input is missing or does not fit.
        """

    @abstractmethod
    def absent(self, signals: Signals) -> Signals:
        """Signals of the same shapes that say nothing, for dropping and for guidance.

        Args:
            signals: of this condition alone.
        """

    def completed(self, value: Any, seeds: Sequence[int], *, draw: bool) -> Any:
        """Read what a user gave for a pipeline, and complete it.

        Args:
            value: in any form that users may give it in; None for nothing.
            seeds: of the images.
            draw: whether to draw what is missing from each image's seed, or to leave it open.

        Returns:
            One entry per image, or None.

        Raises:
            ContractError: if the value cannot be read.
        """
        return value

    def result_size(self, inputs: Inputs, previous: Tensor | None, space: Space) -> Size | None:
        """Height and width of the result that the inputs call for; None if they leave it open.

        Raises:
            ContractError: if an input is missing or does not fit.
        """
        return None

    # ---- evaluation -----------------------------------------------------------------------------

    @abstractmethod
    def input_of(self, batch: Batch, space: Space, *, damaged: bool = False) -> Any:
        """What a user would give to get these pictures.

        Args:
            batch: of true pictures.
            space: of the stage.
            damaged: whether to damage it as training does; its seeds decide how.

        Returns:
            (B, …), or None if nothing is known.
        """

    def deviation(self, samples: Tensor, value: Any, space: Space) -> dict[str, float]:
        """How far samples (B, C, H, W) are from what `input_of` gave for them, by figure."""
        return {}
