"""Runner: makes the images of candidates and computes their features and figures.

All candidates get the same seeds and held-out pictures, so that they differ only in their settings.

Shapes: M real images, F features.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from cascade.errors import ContractError
from cascade.evaluation.alignment.judge import AlignmentJudge
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.progress import NamedProgress
from cascade.sampling.settings import SamplingSettings
from cascade.sweeping.candidate_images import CandidateImages

Settings = Mapping[str, SamplingSettings]


class NotFiniteError(ContractError):
    """Settings give images with values that are not finite, which cannot be measured."""


def check_finite(images: Tensor, source: str) -> None:
    """Check images before they are measured.

    Raises:
        NotFiniteError: if a value is not finite.
    """
    if not images.isfinite().all():
        raise NotFiniteError(f"the images of {source} have values that are not finite.")


def clock_s(device: torch.device) -> float:
    """A time in seconds, to measure work on a device by the difference of two.

    On the CPU it is the time of all processors together, which other work on the machine changes
    much less than wall time, so that a sweep that goes on tomorrow compares with today.
    """
    return time.process_time() if device.type == "cpu" else time.perf_counter()


class Runner(ABC):
    """Makes images with a pipeline under changed settings."""

    at_a_time: ClassVar[int]  # number of images between two writes to disk
    reference: ClassVar[str]  # name of the images that figures compare with
    files: Sequence[str] = ()  # of the originals, one name per place; none without originals
    judge: AlignmentJudge | None = None  # judges images by their prompts

    @abstractmethod
    def figure_names(self) -> list[str]:
        """The beginnings of the names of a candidate's figures."""

    @abstractmethod
    def check(self, fewest: int, most: int, progress: NamedProgress) -> None:
        """Check that there are enough held-out pictures, before work that takes long.

        Args:
            fewest: number of images that every candidate gets.
            most: largest number of images that a candidate gets.
            progress: called while pictures are read.

        Raises:
            DataError: if there are too few pictures, or naming one that is damaged or too small.
        """

    @abstractmethod
    def real_features(self, progress: NamedProgress) -> Tensor | None:
        """Features (M, F) of real pictures; None if each image has an original of its own."""

    @abstractmethod
    def run(self, settings: Settings, places: Sequence[int]) -> CandidateImages:
        """Make some images of a candidate.

        Args:
            settings: sampling settings of each stage, by its name.
            places: numbers of the images, counted from the first seed.

        Raises:
            NotFiniteError: if a value of an image is not finite.
        """


def distance_names(extractor: FeatureExtractor) -> list[str]:
    """The beginnings of the names of the distances between sets."""
    return [f"KID-{extractor.name}", f"FD-{extractor.name}"]
