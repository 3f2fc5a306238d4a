"""Held-out and training pictures at the sizes of stages, and their features, kept in a cache.

What a network sees in real pictures is kept in a cache folder, under a hash of their bytes, their
size, and the extractor's weights: a change of any of these leads to another file.

Shapes: B images, H and W pixels of a stage's images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.labels import LabelVocabulary
from cascade.contract import Contract
from cascade.data.remote import default_cache, shown
from cascade.data.source import ImageSource
from cascade.data.sources import open_source
from cascade.data.training_images import (
    TrainingImages,
    TrainingSample,
    as_float,
    collate,
    epoch_order,
)
from cascade.errors import ContractError, DataError
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.image_set import ImageSet, ImageSetBuilder
from cascade.evaluation.progress import NamedProgress
from cascade.imaging.writing import from_uint8
from cascade.saving.atomic import atomic_file
from cascade.space import Space

REAL = "held-out pictures"  # in the bases of figures
READ_AT_A_TIME = 32
CACHED = ("features", "colourfulness", "colour_mean", "colour_spread", "shown")


@final
class RealPictures:
    """Pictures of a source, in a mixed order that is always the same.

    Args:
        source: a folder, shards, or an opened source.
        name: for sentences, such as `held-out pictures`.
        vocabulary: of the pipeline; pictures of classes that are not in it are left out.
        cache_dir: where features are kept; default: the user's cache folder.

    Attributes:
        left_out: number of pictures that are left out.
        path: of the source, without the keys of URLs; empty if it was opened before.

    Raises:
        DataError: if there is no picture, or none of a class of the vocabulary.
    """

    def __init__(
        self,
        source: str | Path | ImageSource,
        *,
        name: str,
        vocabulary: LabelVocabulary | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        opened = source if isinstance(source, ImageSource) else open_source(str(source))
        self.source: ImageSource = opened
        self.path = "" if isinstance(source, ImageSource) else shown(str(source))
        self.name = name
        self._vocabulary = vocabulary
        wrong = {
            index: self._check_class(index) for index in epoch_order(0, 0, len(opened)).tolist()
        }
        self.order = [index for index, reason in wrong.items() if not reason]
        self.left_out = len(wrong) - len(self.order)
        if not self.order:
            raise DataError(f"no {name} of the pipeline's classes: {next(iter(wrong.values()))}")
        self.cache_dir = cache_dir or default_cache().with_name("features")

    def __len__(self) -> int:
        return len(self.order)

    # ---- pictures -------------------------------------------------------------------------------

    def read(self, places: Sequence[int], space: Space) -> Tensor:
        """Pictures at the size of a stage.

        Args:
            places: in the mixed order.
            space: of the stage.

        Returns:
            (B, 3, H, W) in [-1, 1].

        Raises:
            DataError: naming a picture that is damaged or too small.
        """
        return self.batch(places, Contract(space)).images

    def batch(self, places: Sequence[int], contract: Contract) -> Batch:
        """Pictures with what belongs to them for the conditions of a stage, as in training.

        Args:
            places: in the mixed order; they are the seeds of the batch, too.
            contract: of the stage.

        Raises:
            DataError: naming a picture that is damaged or too small.
        """
        images = TrainingImages(self.source, contract, flip=False, cache_mib=0)
        return collate([self._sample(images, place) for place in places])

    def _sample(self, images: TrainingImages, place: int) -> TrainingSample:
        index = self.order[place]
        sized = images.sized(index)
        values = {name: as_float(each) for name, each in sized.smaller.items()}
        for condition in images.contract.conditions:
            if condition.annotation_fields:
                annotated = condition.of_annotations(self.source.labels(index))
                values |= {} if annotated is None else {condition.name: annotated}
        return TrainingSample(from_uint8(sized.image), values, place)

    def inputs(
        self, places: Sequence[int], contracts: Sequence[Contract], *, damaged: bool
    ) -> Inputs:
        """What a user would give a chain of stages to get these pictures, class names aside.

        Args:
            places: in the mixed order; they are the seeds of the damage, too.
            contracts: of the stages, first stage first. An input that several stages read is made
                at the size of the last one.
            damaged: whether images are damaged as in training.

        Raises:
            DataError: naming a picture that is damaged or too small.
        """
        values = {}
        for number, contract in enumerate(contracts):
            conditions = [
                each for each in contract.conditions if _reads_input(each, contract, number == 0)
            ]
            if conditions:
                part = Contract(contract.space, tuple(conditions))
                values |= part.inputs_of(self.batch(places, part), damaged=damaged).values
        return Inputs(values)

    def check(self, count: int, space: Space, progress: NamedProgress) -> None:
        """Read the first pictures once, before work that takes long.

        Raises:
            DataError: if there are fewer, or naming one that is damaged or too small.
        """
        if count > len(self):
            raise DataError(
                f"{count} pictures were asked for, but there are {len(self)} {self.name}."
            )
        for place in range(count):
            self.read([place], space)
            progress(f"{self.name}, read", place + 1, count)

    # ---- classes --------------------------------------------------------------------------------

    def labels(self, place: int) -> dict[str, str]:
        """Labels of the picture at a place, of the fields of the vocabulary."""
        return self._known_labels(self.order[place])

    def notes(self) -> list[str]:
        """What one must know about the pictures to read figures."""
        if not self.left_out:
            return []
        return [
            f"{self.left_out} {self.name} are of classes that the pipeline does not know, and are "
            "left out."
        ]

    def _known_labels(self, index: int) -> dict[str, str]:
        fields = [] if self._vocabulary is None else self._vocabulary.fields
        labels = self.source.labels(index) if fields else {}
        return {field: labels[field] for field in fields if field in labels}

    def _check_class(self, index: int) -> str:
        """Why the class of a picture is not in the vocabulary; empty if it is."""
        try:
            if self._vocabulary is not None:
                self._vocabulary.encode(self._known_labels(index))
        except ContractError as error:
            return str(error)
        return ""

    # ---- features -------------------------------------------------------------------------------

    @cached_property
    def digests(self) -> list[str]:
        """A hash of each file, in the mixed order."""
        return [hashlib.sha256(self.source.read(index)).hexdigest() for index in self.order]

    def image_set(
        self,
        space: Space,
        extractor: FeatureExtractor,
        *,
        device: torch.device,
        progress: NamedProgress,
    ) -> ImageSet:
        """All pictures at a stage's size, from the cache if they were read before.

        Raises:
            DataError: naming a picture that is damaged or too small.
            OutputError: if the cache cannot be written.
        """
        file = self.cache_dir / f"{self._key(space, extractor)}.safetensors"
        cached = _load(file)
        if cached is not None:
            return cached
        builder = ImageSetBuilder(extractor, device)
        for first in range(0, len(self), READ_AT_A_TIME):
            progress(f"{self.name}, {space.size_text}", first, len(self))
            places = range(first, min(first + READ_AT_A_TIME, len(self)))
            builder.add(self.read(places, space))
        progress(f"{self.name}, {space.size_text}", len(self), len(self))
        images = builder.finish()
        with atomic_file(file) as temporary:
            save_file({name: getattr(images, name).contiguous() for name in CACHED}, temporary)
        return images

    def _key(self, space: Space, extractor: FeatureExtractor) -> str:
        parts = [extractor.fingerprint(), space.size_text, space.resize_kernel]
        return hashlib.sha256("\n".join([*parts, *self.digests]).encode()).hexdigest()[:32]


def _reads_input(condition: Condition, contract: Contract, is_first: bool) -> bool:
    """Whether a user gives what the condition needs; class names are given apart."""
    takes_previous = not is_first and condition.image_space(contract.space) is not None
    return not takes_previous and not condition.classes


def _load(file: Path) -> ImageSet | None:
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in CACHED}
    except (OSError, SafetensorError):  # not there, or damaged: it is made anew
        return None
    return ImageSet(**tensors, probabilities=None)
