"""Makes the pictures of a combination of settings, through the whole chain.

The same seeds and held-out pictures serve all combinations, so that they differ in nothing but
their settings.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from cascade.errors import ContractError
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.generated import labels_of
from cascade.evaluation.metrics import colourfulness
from cascade.evaluation.observation import Observer
from cascade.evaluation.pictures import Pictures
from cascade.evaluation.restored import Distance, pair_values, pairs, restoring
from cascade.imaging.writing import to_uint8
from cascade.pipeline import CascadeOutput, CascadePipeline
from cascade.resizing import quantise
from cascade.sampling.settings import SamplingSettings
from cascade.sweeping.seen import MOST_SHOWN, Seen

COLOURFULNESS, THEIRS = "colourfulness", "colourfulness of the originals"


class NotFiniteError(ContractError):
    """Settings give pictures of which nothing can be measured."""


def _check_finite(images: Tensor, whose: str) -> None:
    if not images.isfinite().all():
        raise NotFiniteError(f"the pictures of {whose} are not finite numbers.")


class Making(ABC):
    """Makes pictures by settings.

    Attributes:
        at_a_time: how many are made before what was seen of them is worth keeping.
    """

    at_a_time: int

    @abstractmethod
    def make(self, settings: Mapping[str, SamplingSettings], places: Sequence[int]) -> Seen:
        """Make the pictures of some places, counted from the first seed, and look at them.

        Args:
            settings: of each stage.
            places: of the pictures.

        Raises:
            NotFiniteError: if they are not finite numbers.
        """


@final
class GeneratedMaking(Making):
    """From noise. What a stage made is kept until its settings change, and serves the next stages.

    Args:
        pipeline: that begins with a base stage, on its device.
        held_out: of whose classes pictures are made.
        extractor: of the features.
        seed: of the first picture.
    """

    at_a_time = 16

    def __init__(
        self,
        pipeline: CascadePipeline,
        held_out: Pictures,
        extractor: FeatureExtractor,
        seed: int,
    ) -> None:
        self._pipeline = pipeline
        self._held_out = held_out
        self._extractor = extractor
        self._seed = seed
        self._alone = {
            name: CascadePipeline.from_stages({name: stage})
            for name, stage in pipeline.stages.items()
        }
        for alone in self._alone.values():
            alone.set_progress_bar_config(disable=True)
        self._kept_for: dict[str, list[SamplingSettings]] = {}
        self._kept: dict[str, dict[int, tuple[Tensor, float]]] = {}
        self._labels: dict[int, dict[str, str]] = {}

    def make(self, settings: Mapping[str, SamplingSettings], places: Sequence[int]) -> Seen:
        images, seconds = None, torch.zeros(len(places))
        *_, last = settings
        for depth, name in enumerate(settings):
            so_far = list(settings.values())[: depth + 1]
            if name == last:
                made = self._run(name, images, settings[name], places)
            else:
                made = self._run_or_keep(name, images, so_far, places)
            images = torch.stack([image for image, _ in made])
            seconds = seconds + torch.tensor([s for _, s in made])
        assert images is not None
        observer = Observer(self._extractor, self._pipeline.device)
        observer.add(images)
        features = observer.finish().features
        return Seen(
            features=features,
            real_features=features[:0],
            seconds=seconds,
            values={},
            shown=to_uint8(images[:MOST_SHOWN]),
        )

    def _run_or_keep(
        self,
        name: str,
        images: Tensor | None,
        so_far: list[SamplingSettings],
        places: Sequence[int],
    ) -> list[tuple[Tensor, float]]:
        if self._kept_for.get(name) != so_far:
            self._kept_for[name], self._kept[name] = so_far, {}
        kept = self._kept[name]
        missing = [at for at, place in enumerate(places) if place not in kept]
        if missing:
            given = None if images is None else images[missing]
            made = self._run(name, given, so_far[-1], [places[at] for at in missing])
            kept |= {places[at]: each for at, each in zip(missing, made, strict=True)}
        return [kept[place] for place in places]

    def _run(
        self,
        name: str,
        images: Tensor | None,
        settings: SamplingSettings,
        places: Sequence[int],
    ) -> list[tuple[Tensor, float]]:
        """Images (C, H, W) of one stage, and seconds of each."""
        alone, stage = self._alone[name], self._pipeline.stages[name]
        before, stage.sampling = stage.sampling, settings
        begun = time.perf_counter()
        try:
            result = alone(
                num_images=len(places),
                seeds=[self._seed + place for place in places],
                image=images,
                labels=self._labels_for(alone, places, drawn=images is not None),
                output_type="pt",
            )
        finally:
            stage.sampling = before
        assert isinstance(result, CascadeOutput)
        _check_finite(result.images, f"stage {name!r}")
        for place, labels in zip(places, result.labels, strict=True):
            self._labels[place] = self._labels.get(place, {}) | labels
        seconds = (time.perf_counter() - begun) / len(places)
        return [(image, seconds) for image in result.images]

    def _labels_for(
        self, alone: CascadePipeline, places: Sequence[int], *, drawn: bool
    ) -> list[Mapping[str, str]] | None:
        """Of held-out pictures, and for later stages also what was drawn where those have none."""
        if alone.labels is None or not drawn:
            return labels_of(alone, self._held_out, places)
        known = alone.labels.fields
        return [{f: v for f, v in self._labels[p].items() if f in known} for p in places]


@final
class RestoredMaking(Making):
    """From held-out pictures made small, or grey.

    Args:
        pipeline: whose first stage takes an image, on its device.
        held_out: the originals.
        extractor: of the features.
        distances: of results from originals, by name.
        seed: of the first picture.
    """

    at_a_time = 4

    def __init__(
        self,
        pipeline: CascadePipeline,
        held_out: Pictures,
        extractor: FeatureExtractor,
        distances: Mapping[str, Distance],
        seed: int,
    ) -> None:
        self._pipeline = pipeline
        self._held_out = held_out
        self._extractor = extractor
        self._distances = distances
        self._seed = seed

    def make(self, settings: Mapping[str, SamplingSettings], places: Sequence[int]) -> Seen:
        stages = dict(self._pipeline.stages.items())
        before = {name: stage.sampling for name, stage in stages.items()}
        try:
            for name, stage in stages.items():
                stage.sampling = settings[name]
            return self._restore(places)
        finally:
            for name, stage in stages.items():
                stage.sampling = before[name]

    def _restore(self, places: Sequence[int]) -> Seen:
        stages = [stage for _, stage in self._pipeline.stages.items()]
        restore = restoring(stages)
        observers = [Observer(self._extractor, self._pipeline.device) for _ in range(2)]
        values: dict[str, list[float]] = {}
        seconds, shown = [], []
        for place in places:
            given, truth = pairs(self._held_out, [place], stages)
            begun = time.perf_counter()
            result = quantise(restore(given[0], self._seed + place)[None])
            _check_finite(result, "the pipeline")
            seconds.append(time.perf_counter() - begun)
            found = pair_values(stages[0], given, result, truth, self._distances)
            if stages[0].contract.takes == "grey":
                found[COLOURFULNESS] = float(colourfulness(result))
                found[THEIRS] = float(colourfulness(truth))
            for name, value in found.items():
                values.setdefault(name, []).append(value)
            for observer, image in zip(observers, (result, truth), strict=True):
                observer.add(image)
            shown.append(to_uint8(result))
        features, real = (observer.finish().features for observer in observers)
        return Seen(
            features=features,
            real_features=real,
            seconds=torch.tensor(seconds),
            values={name: torch.tensor(each) for name, each in values.items()},
            shown=torch.cat(shown[:MOST_SHOWN]),
        )
