"""Runner: makes the images of candidates, and looks at them.

The same seeds and held-out pictures serve all candidates, so that they differ in nothing but their
settings.

Shapes: M real images, F features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from cascade.errors import ContractError
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.progress import NamedProgress
from cascade.sampling.settings import SamplingSettings
from cascade.sweeping.candidate_images import CandidateImages

Settings = Mapping[str, SamplingSettings]


class NotFiniteError(ContractError):
    """Settings give images with values that are not finite, of which nothing can be measured."""


def check_finite(images: Tensor, source: str) -> None:
    """Check images before they are measured.

    Raises:
        NotFiniteError: if a value is not finite.
    """
    if not images.isfinite().all():
        raise NotFiniteError(f"the pictures of {source} are not finite numbers.")


class Runner(ABC):
    """Makes images with a pipeline under changed settings."""

    at_a_time: ClassVar[int]  # images that are made before they are worth writing to disk
    reference: ClassVar[str]  # what figures compare with, in words

    @abstractmethod
    def figure_names(self) -> list[str]:
        """The figures of a candidate; their names may go on."""

    @abstractmethod
    def check(self, fewest: int, most: int, progress: NamedProgress) -> None:
        """Check that there are enough held-out pictures, before work that takes long.

        Args:
            fewest: images that every candidate gets.
            most: images that a candidate gets at most.
            progress: called as pictures are read.

        Raises:
            DataError: if there are too few, or naming one that is damaged or too small.
        """

    @abstractmethod
    def real_features(self, progress: NamedProgress) -> Tensor | None:
        """Features (M, F) of real pictures; None if each image has an original of its own."""

    @abstractmethod
    def run(self, settings: Settings, places: Sequence[int]) -> CandidateImages:
        """Make the images of some places.

        Args:
            settings: of each stage.
            places: of the images, counted from the first seed.

        Raises:
            NotFiniteError: if a value of an image is not finite.
        """


def distance_names(extractor: FeatureExtractor) -> list[str]:
    """How the names of the distances of sets begin."""
    return [f"KID-{extractor.name}", f"FD-{extractor.name}"]
