"""Runs a whole chain and compares the set of its images with held-out pictures.

Shapes: B images, M held-out pictures, C channels, H and W pixels, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from cascade.conditioning.inputs import Inputs
from cascade.conditioning.latents import Latents
from cascade.evaluation.alignment.judge import AlignmentJudge
from cascade.evaluation.feature_cache import collect_images
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.image_set import ImageSet, ImageSetBuilder
from cascade.evaluation.measuring_sets import check_enough, labels_of
from cascade.evaluation.progress import NamedProgress
from cascade.evaluation.real_pictures import REAL, RealPictures
from cascade.imaging.rasters.showing import as_rgb
from cascade.imaging.writing import to_uint8
from cascade.pipeline import CascadeOutput, CascadePipeline
from cascade.sampling.settings import SamplingSettings
from cascade.sweeping.candidate_images import MOST_SAMPLES, CandidateImages
from cascade.sweeping.runner import Runner, Settings, check_finite, clock_s, distance_names


@dataclass(frozen=True)
class StageImages:
    """The images of one stage.

    Attributes:
        images: (B, C, H, W) in [-1, 1].
        seconds: (B,) time of each image in seconds, including earlier stages; see `clock_s`.
    """

    images: Tensor
    seconds: Tensor

    def part(self, numbers: Sequence[int]) -> StageImages:
        """The images of these numbers, counted from 0."""
        return StageImages(self.images[numbers], self.seconds[numbers])


@final
class SetRunner(Runner):
    """Makes images whose set is compared with held-out pictures.

    The images of earlier stages are kept for later stages until the settings of their chain change.

    Args:
        pipeline: the pipeline, on its device.
        held_out: held-out pictures; the images are made with the same labels.
        extractor: computes the features of the images.
        seed: seed of the first image; each further image has the next seed.
        judge: judges the images by the captions of the held-out pictures; None to skip that.
    """

    at_a_time = 16
    reference = REAL

    def __init__(
        self,
        pipeline: CascadePipeline,
        held_out: RealPictures,
        extractor: FeatureExtractor,
        seed: int,
        judge: AlignmentJudge | None = None,
    ) -> None:
        self.judge = judge
        self._pipeline = pipeline
        self._held_out = held_out
        self._extractor = extractor
        self._seed = seed
        self._cache_settings: dict[str, list[SamplingSettings]] = {}
        self._cache: dict[str, dict[int, StageImages]] = {}  # by stage and place, one image each

    def figure_names(self) -> list[str]:
        of_prompts = [] if self.judge is None else self.judge.figure_names()
        return [*distance_names(self._extractor), *of_prompts]

    def check(self, fewest: int, most: int, progress: NamedProgress) -> None:
        check_enough(fewest, len(self._held_out))

    def real_features(self, progress: NamedProgress) -> Tensor:
        space, device = self._pipeline.stages.last.space, self._pipeline.device
        images = collect_images(
            self._held_out, space, self._extractor, device=device, progress=progress
        )
        return images.features

    def run(self, settings: Settings, places: Sequence[int]) -> CandidateImages:
        previous = None
        *earlier, last = self._pipeline.stages.names
        for number, name in enumerate(earlier):
            chain_settings = [settings[each] for each in earlier[: number + 1]]
            previous = self._run_or_recall(name, previous, chain_settings, places)
        result = self._run(last, previous, settings[last], places)
        model = None if self.judge is None else self.judge.model
        space = self._pipeline.stages.last.space
        builder = ImageSetBuilder(self._extractor, self._pipeline.device, model, space)
        builder.add(result.images)
        images = builder.finish()
        return CandidateImages(
            features=images.features,
            real_features=images.features[:0],
            seconds=result.seconds,
            figures=self._figures(images, places),
            samples=to_uint8(as_rgb(result.images[:MOST_SAMPLES], space)),
        )

    def _figures(self, images: ImageSet, places: Sequence[int]) -> dict[str, Tensor]:
        if self.judge is None or images.embeddings is None:
            return {}
        held_out_places = [place % len(self._held_out) for place in places]
        return self.judge.figures(images.embeddings, held_out_places)

    def _run_or_recall(
        self,
        name: str,
        previous: StageImages | None,
        chain_settings: list[SamplingSettings],
        places: Sequence[int],
    ) -> StageImages:
        """The images of a stage, made only where they are not in the cache."""
        if self._cache_settings.get(name) != chain_settings:
            self._cache_settings[name], self._cache[name] = chain_settings, {}
        cache = self._cache[name]
        numbers = [number for number, place in enumerate(places) if place not in cache]
        if numbers:
            previous = None if previous is None else previous.part(numbers)
            missing_places = [places[number] for number in numbers]
            new = self._run(name, previous, chain_settings[-1], missing_places)
            cache |= {place: new.part([number]) for number, place in enumerate(missing_places)}
        images, seconds = zip(*((cache[p].images, cache[p].seconds) for p in places), strict=True)
        return StageImages(torch.cat(images), torch.cat(seconds))

    def _run(
        self,
        name: str,
        previous: StageImages | None,
        settings: SamplingSettings,
        places: Sequence[int],
    ) -> StageImages:
        """The images of one stage."""
        stage = self._pipeline.stages[name].with_sampling(settings)
        alone = CascadePipeline.from_stages({name: stage})
        alone.set_progress_bar_config(disable=True)
        inputs = self._inputs(places).only(stage.contract.input_names)
        image = None if previous is None else previous.images
        if Latents.input_name in stage.contract.input_names:
            image, inputs = None, inputs.with_value(Latents.input_name, image)
        start_s = clock_s(self._pipeline.device)
        result = alone(
            num_images=len(places),
            seeds=self._seeds(places),
            image=image,
            labels=self._labels(alone, places),
            inputs=inputs.values,
            output_type="pt",
        )
        assert isinstance(result, CascadeOutput)
        whole_s = clock_s(self._pipeline.device) - start_s
        seconds = torch.full((len(places),), whole_s / len(places))
        check_finite(result.images, f"stage {name!r}")
        before = 0 if previous is None else previous.seconds
        return StageImages(result.images, before + seconds)

    def _seeds(self, places: Sequence[int]) -> list[int]:
        return [self._seed + place for place in places]

    def _inputs(self, places: Sequence[int]) -> Inputs:
        """The inputs from which a stage should make held-out pictures, without class names."""
        held_out_places = [place % len(self._held_out) for place in places]
        contracts = self._pipeline.stages.contracts
        return self._held_out.inputs(held_out_places, contracts, degraded=False)

    def _labels(
        self, alone: CascadePipeline, places: Sequence[int]
    ) -> list[Mapping[str, str]] | None:
        """The labels of images for one stage: those that the whole chain has.

        Of held-out pictures, and where these have none, as the chain draws them from the seeds.
        """
        if alone.labels is None:
            return None
        stages = [stage for _, stage in self._pipeline.stages.items()]
        condition = next(each for stage in stages for each in stage.conditions if each.classes)
        labels = labels_of(self._pipeline, self._held_out, places)
        draw = self._inputs(places).get("prompt") is None
        completed = condition.completed(labels, self._seeds(places), draw=draw)
        fields = alone.labels.fields
        return [{key: each[key] for key in fields if key in each} for each in completed]
