"""Held-out and training pictures at the sizes of stages.

Slices of one volume resemble each other. Therefore the first pictures come from as many files as
there are, then the next ones of each.

Shapes: B images, H and W pixels of a stage's images.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import final

from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.labels import LabelVocabulary
from cascade.contract import Contract
from cascade.data.batches import collate
from cascade.data.checking import check_images
from cascade.data.file_reading import FileReading
from cascade.data.fitting import as_float
from cascade.data.joining import Pairing
from cascade.data.preparation import Decoding
from cascade.data.remote import default_cache, without_secrets
from cascade.data.samples import TrainingSample
from cascade.data.source import ImageSource
from cascade.data.sources import open_source
from cascade.data.splitting import FileGroups
from cascade.data.tensors import TensorSource
from cascade.data.training_images import TrainingImages, epoch_order
from cascade.errors import ContractError, DataError
from cascade.evaluation.progress import NamedProgress
from cascade.imaging.rasters.layout import Layout
from cascade.reporting.words import counted
from cascade.space import Space

REAL = "held-out images"  # their name in figures
NARROW_ADVICE = "; state the range {low} to {high} if the pipeline was trained with it"
LOOKED_AT = 16  # pictures whose range of numbers is looked at, as before training


@final
class RealPictures:
    """The pictures of a source, shuffled in an order that is always the same.

    A place is the number of a picture in this order.

    Args:
        source: a folder, shards, or an open source.
        name: what messages call the pictures, such as `held-out pictures`.
        vocabulary: class names of the pipeline; pictures of other classes are left out. None keeps
            all pictures.
        cache_dir: folder for features; default: the user's cache folder.
        space: space of the pipeline's results, by which files of bands are read; None for colours.
        pairs: where the inputs of these pictures are, see `Pairing`; None for no pairs.
        taker: for pairs, the condition that takes the inputs.
        reading: what the files do not say about their numbers; as in training.

    Attributes:
        left_out: number of pictures that are left out.
        cache_dir: folder for features.
        files: by place, a name that all images of one file or volume share.
        path: path of the source, without secret parts of URLs; empty for an open source.

    Raises:
        ContractError: if the reading has a value that is wrong or without effect.
        DataError: if there are no pictures, or none of a class in the vocabulary.
    """

    def __init__(
        self,
        source: str | Path | ImageSource,
        *,
        name: str,
        vocabulary: LabelVocabulary | None = None,
        cache_dir: Path | None = None,
        space: Space | None = None,
        pairs: str | None = None,
        taker: Condition | None = None,
        reading: FileReading | None = None,
    ) -> None:
        self.reading = reading or FileReading()
        self.reading.check(bands=space is not None and space.has_bands)
        axis, opened = self.reading.slicing_axis, source
        if not isinstance(opened, ImageSource):
            pairing = None
            if pairs is not None:
                pairing = Pairing(pairs, _layout_of_inputs(taker, space, axis))
            opened = open_source(str(opened), layout=_layout(space, axis), pairing=pairing)
        self.source: ImageSource = opened
        self._taker = () if taker is None or opened.partners is None else (taker,)
        self.path = "" if isinstance(source, ImageSource) else without_secrets(str(source))
        self.name = name
        self._vocabulary = vocabulary
        self._has_bands = space is not None and space.has_bands
        order = epoch_order(0, 0, len(opened)).tolist()
        reasons = {index: self._check_class(index) for index in order}
        self.order = [index for index, reason in reasons.items() if not reason]
        self.left_out = len(order) - len(self.order)
        if not self.order:
            raise DataError(f"no {name} of the pipeline's classes: {next(iter(reasons.values()))}")
        self.order, self.files = _spread_over_files(self.order, FileGroups(opened))
        self.cache_dir = cache_dir or default_cache().with_name("features")

    def __len__(self) -> int:
        return len(self.order)

    @property
    def are_pairs(self) -> bool:
        """Whether the inputs of the pictures are files of their own."""
        return self.source.partners is not None

    # ---- pictures -------------------------------------------------------------------------------

    def read(self, places: Sequence[int], space: Space) -> Tensor:
        """Read pictures at the size of a stage.

        Args:
            places: numbers of the pictures.
            space: space of the stage.

        Returns:
            (B, 3, H, W) in [-1, 1].

        Raises:
            DataError: naming a picture that is damaged or too small.
        """
        return self.batch(places, Contract(space, self._taker)).images

    def batch(self, places: Sequence[int], contract: Contract) -> Batch:
        """Read pictures as a training batch, with the data that the stage's conditions need.

        Args:
            places: numbers of the pictures, which are also the seeds of the batch.
            contract: contract of the stage.

        Raises:
            DataError: naming a picture that is damaged or too small.
        """
        reading = self.reading
        images = TrainingImages(
            self.source,
            contract,
            flip=(),
            cache_mib=0,
            range=reading.range,
            nodata=reading.nodata,
            axis=reading.slicing_axis,
        )
        return collate([self._sample(images, place) for place in places])

    def _sample(self, images: TrainingImages, place: int) -> TrainingSample:
        index = self.order[place]
        sized = images.middle(index)
        values = {name: as_float(each) for name, each in sized.smaller.items()}
        for condition in images.contract.conditions:
            if condition.annotation_fields:
                annotated = condition.of_annotations(self.source.labels(index))
                values |= {} if annotated is None else {condition.name: annotated}
        return TrainingSample(as_float(sized.image), values, place)

    def inputs(
        self, places: Sequence[int], contracts: Sequence[Contract], *, degraded: bool
    ) -> Inputs:
        """Make the inputs that a user would give a chain to get these pictures, except class names.

        Args:
            places: numbers of the pictures, which also seed the degradation.
            contracts: contracts of the stages, first stage first. An input that several stages read
                is made at the size of the last of them; for a stage of latents or embeddings, the
                pictures are read at the size of the next stage that makes pixels. A picture with a
                hole has the size of the results.
            degraded: whether to degrade images as in training.

        Raises:
            DataError: naming a picture that is damaged or too small.
        """
        values = {}
        for number, contract in enumerate(contracts):
            conditions = [
                each for each in contract.conditions if _reads_input(each, contract, number == 0)
            ]
            if conditions:
                rest = contracts[-1:] if contract.fills else contracts[number:]
                part = Contract(_pictured(rest), tuple(conditions))
                values |= part.inputs_of(self.batch(places, part), degraded=degraded).values
        return Inputs(values)

    def check(self, count: int, space: Space, progress: NamedProgress) -> None:
        """Read the first `count` pictures once, before work that takes long.

        Raises:
            DataError: if there are fewer pictures, or naming one that is damaged or too small.
        """
        if count > len(self):
            raise DataError(
                f"{count} images were requested, but there are {len(self)} {self.name}."
            )
        for place in range(count):
            self.read([place], space)
            progress(f"{self.name}, read", place + 1, count)

    # ---- classes --------------------------------------------------------------------------------

    def labels(self, place: int) -> dict[str, str]:
        """Read the labels of a picture, for the fields of the vocabulary."""
        return self._known_labels(self.order[place])

    def annotations(self, place: int) -> dict[str, str]:
        """Read all annotations of a picture, such as its captions."""
        return self.source.labels(self.order[place])

    def key(self, place: int) -> str:
        """Name of a picture in its source, without suffix."""
        return self.source.key(self.order[place])

    def notes(self, count: int) -> list[str]:
        """Write the notes that figures on the first `count` pictures need."""
        notes = []
        if self.left_out:
            notes.append(
                f"{self.left_out} {self.name} are of classes that the pipeline does not know, and "
                "are left out."
            )
        files = len(set(self.files[:count]))
        if files < min(count, len(self)):
            notes.append(
                f"these are {min(count, len(self))} {self.name} of {counted(files, 'file')}; "
                "images of one file resemble each other and say less than images of as many "
                "files would."
            )
        return [*notes, *self._narrow_notes()]

    def _narrow_notes(self) -> list[str]:
        """Warn if the first pictures use little of their numbers and no range is stated."""
        if self._has_bands or self.reading.range or isinstance(self.source, TensorSource):
            return []
        first = self.order[:LOOKED_AT]
        report = check_images(self.source, order=first, decoding=Decoding(), duplicates=False)
        return report.narrow_warnings(NARROW_ADVICE)

    def _known_labels(self, index: int) -> dict[str, str]:
        fields = [] if self._vocabulary is None else self._vocabulary.fields
        labels = self.source.labels(index) if fields else {}
        return {field: labels[field] for field in fields if field in labels}

    def _check_class(self, index: int) -> str:
        """Say why the class of a picture is not in the vocabulary; empty if it is."""
        try:
            if self._vocabulary is not None:
                self._vocabulary.encode(self._known_labels(index))
        except ContractError as error:
            return str(error)
        return ""

    # ---- files ----------------------------------------------------------------------------------

    @cached_property
    def digests(self) -> list[str]:
        """A hash of each file, by place."""
        return [_digest(self.source, index) for index in self.order]

    @cached_property
    def partner_digests(self) -> list[str]:
        """A hash of the file of each picture's input, by place; empty where a pair lacks it.

        Without pairs there are none.
        """
        partners = self.source.partners
        if partners is None:
            return []
        indices = [partners.indices[index] for index in self.order]
        return ["" if each is None else _digest(partners.source, each) for each in indices]


def _spread_over_files(order: Sequence[int], groups: FileGroups) -> tuple[list[int], list[str]]:
    """Put the first image of every file before the second one of any, and so on.

    Returns:
        The images in this order, and the names of their files.
    """
    counts: Counter[str] = Counter()
    turns = []
    for index in order:
        file = groups.name_of(index)
        turns.append((counts[file], index, file))
        counts[file] += 1
    turns.sort(key=lambda turn: turn[0])  # stable: images of their own keep their order
    return [index for _, index, _ in turns], [file for _, _, file in turns]


def _digest(source: ImageSource, index: int) -> str:
    return hashlib.sha256(source.read(index)).hexdigest()


def _reads_input(condition: Condition, contract: Contract, is_first: bool) -> bool:
    """Whether the condition reads an input of the user other than class names."""
    takes_previous = not is_first and condition.image_space(contract.space) is not None
    return not takes_previous and not condition.classes


def _layout(space: Space | None, axis: int) -> Layout | None:
    return Layout(space.channels, axis) if space is not None and space.has_bands else None


def _layout_of_inputs(taker: Condition | None, space: Space | None, axis: int) -> Layout | None:
    """How the files of inputs of pairs are divided into images.

    Raises:
        ContractError: if no condition takes such inputs.
    """
    if taker is None or space is None:
        raise ContractError(
            "pairs are for a pipeline that makes one image from another, such as an upscaler; "
            "leave them out."
        )
    return _layout(taker.partner_space(space), axis)


def _pictured(contracts: Sequence[Contract]) -> Space:
    """The space of the first stage that makes pixels; of the first stage if none does."""
    spaces = [each.space for each in contracts]
    return next((each for each in spaces if each.kind == "pixels"), spaces[0])
