"""Held-out and training pictures at the sizes of stages, and what is known of them from before.

What a network sees in real pictures is kept in a cache folder, under a hash of their bytes, their
size, and the extractor's weights: any change of one of them is another file.

Shapes: B images, C channels, S side of a stage's images, s of what it takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cascade.conditioning.labels import LabelVocabulary
from cascade.contract import Contract
from cascade.data.remote import default_cache, without_secrets
from cascade.data.source import ImageSource
from cascade.data.sources import open_source
from cascade.data.training_images import TrainingImages, epoch_order
from cascade.errors import ContractError, DataError
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.observation import Observation, Observer
from cascade.imaging.writing import from_uint8
from cascade.saving.atomic import atomic_file

READ_AT_A_TIME = 32
CACHED = ("features", "colourfulness", "colour_mean", "colour_spread", "shown")
Report = Callable[[str, int, int], None]


class Pictures:
    """Real pictures of a source, in a mixed order that is always the same.

    Args:
        source: a folder, shards, or a source that was opened.
        name: what to call them in sentences, such as `held-out pictures`.
        vocabulary: of the pipeline; pictures of classes that it does not know are left out.
        cache_dir: where features are kept; default: the user's cache folder.

    Attributes:
        left_out: how many are.
        path: of the source, without the keys of URLs; empty if it was opened before.

    Raises:
        DataError: if there is nothing to read, or nothing of a known class.
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
        self.path = "" if isinstance(source, ImageSource) else without_secrets(str(source))
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

    def read(self, places: Sequence[int], contract: Contract) -> tuple[Tensor, Tensor | None]:
        """Pictures as a stage is trained on them.

        Args:
            places: in the mixed order.
            contract: of the stage.

        Returns:
            Images (B, 3, S, S) in [-1, 1], and what an upsampler takes of them, (B, 3, s, s).

        Raises:
            DataError: naming a picture that is damaged or too small.
        """
        sized = TrainingImages(self.source, contract, flip=False, cache_mib=0).sized
        images, smaller = [], []
        for place in places:
            image, low_res = sized(self.order[place])
            images.append(from_uint8(image))
            if low_res is not None:
                smaller.append(from_uint8(low_res) if low_res.dtype == torch.uint8 else low_res)
        return torch.stack(images), torch.stack(smaller) if smaller else None

    def check(self, count: int, contract: Contract, report: Report) -> None:
        """Read the first pictures once, before work that takes long.

        Raises:
            DataError: if there are fewer, or naming one that is damaged or too small.
        """
        if count > len(self):
            raise DataError(
                f"{count} pictures were asked for, but there are {len(self)} {self.name}."
            )
        for place in range(count):
            self.read([place], contract)
            report(f"{self.name}, read", place + 1, count)

    def labels(self, place: int) -> dict[str, str]:
        """Labels of the picture at a place, of the fields that the pipeline knows."""
        return self._known_labels(self.order[place])

    def notes(self) -> list[str]:
        """What one must know of them to read figures."""
        if not self.left_out:
            return []
        return [
            f"{self.left_out} {self.name} are of classes that the pipeline does not know, and are "
            "left out."
        ]

    def _known_labels(self, index: int) -> dict[str, str]:
        fields = [] if self._vocabulary is None else self._vocabulary.fields
        found = self.source.labels(index) if fields else {}
        return {field: found[field] for field in fields if field in found}

    def _check_class(self, index: int) -> str:
        """Why the pipeline does not know the class of a picture; empty if it does."""
        try:
            if self._vocabulary is not None:
                self._vocabulary.encode(self._known_labels(index))
        except ContractError as error:
            return str(error)
        return ""

    @cached_property
    def digests(self) -> list[str]:
        """A hash of each file, in the mixed order."""
        return [hashlib.sha256(self.source.read(index)).hexdigest() for index in self.order]

    def observe(
        self,
        contract: Contract,
        extractor: FeatureExtractor,
        *,
        device: torch.device,
        report: Report,
    ) -> Observation:
        """All pictures at a stage's size, from the cache if they were seen before.

        Raises:
            DataError: naming a picture that is damaged or too small.
            OutputError: if the cache cannot be written.
        """
        file = self.cache_dir / f"{self._key(contract, extractor)}.safetensors"
        known = _load(file)
        if known is not None:
            return known
        observer = Observer(extractor, device)
        for first in range(0, len(self), READ_AT_A_TIME):
            report(f"{self.name}, {contract.size_px} px", first, len(self))
            places = range(first, min(first + READ_AT_A_TIME, len(self)))
            observer.add(self.read(places, contract)[0])
        report(f"{self.name}, {contract.size_px} px", len(self), len(self))
        seen = observer.finish()
        with atomic_file(file) as temporary:
            save_file({name: getattr(seen, name).contiguous() for name in CACHED}, temporary)
        return seen

    def _key(self, contract: Contract, extractor: FeatureExtractor) -> str:
        parts = [extractor.fingerprint(), str(contract.size_px), contract.resize_kernel]
        return hashlib.sha256("\n".join([*parts, *self.digests]).encode()).hexdigest()[:32]


def _load(file: Path) -> Observation | None:
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in CACHED}
    except (OSError, SafetensorError):  # not there, or damaged: it is made anew
        return None
    return Observation(**tensors, probabilities=None)
