"""Runs a pipeline on inputs made of held-out pictures, and compares its results with these.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from cascade.conditioning.inputs import Inputs
from cascade.errors import DataError
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.image_set import ImageSetBuilder
from cascade.evaluation.measuring_pairs import BETTER, TRUTH, pair_values, pairs
from cascade.evaluation.perceptual_distances import Distance
from cascade.evaluation.progress import NamedProgress
from cascade.evaluation.real_pictures import REAL, RealPictures
from cascade.imaging.rasters.showing import as_rgb
from cascade.imaging.writing import to_uint8
from cascade.pipeline import CascadePipeline
from cascade.sweeping.candidate_images import MOST_SAMPLES, CandidateImages
from cascade.sweeping.outcomes import COLOURFULNESS, COLOURFULNESS_SHARE, REAL_COLOURFULNESS
from cascade.sweeping.runner import Runner, Settings, check_finite, clock_s, distance_names
from cascade.tasks.image_metrics import colourfulness
from cascade.tasks.task import PairedTask


@final
class PairedRunner(Runner):
    """Makes images from smaller or greyscale copies of held-out pictures, and compares both.

    Args:
        pipeline: the pipeline, on its device.
        task: the task of the pipeline, which runs it.
        held_out: the originals.
        extractor: computes the features of results and originals.
        distances: distances between results and originals, by name.
        seed: seed of the first image; each further image has the next seed.
    """

    at_a_time = 4
    reference = TRUTH

    def __init__(
        self,
        pipeline: CascadePipeline,
        task: PairedTask,
        held_out: RealPictures,
        extractor: FeatureExtractor,
        distances: Mapping[str, Distance],
        seed: int,
    ) -> None:
        self._pipeline = pipeline
        self._task = task
        self._held_out = held_out
        self.files = held_out.files
        self._extractor = extractor
        self._distances = distances
        self._seed = seed
        self._contracts = pipeline.stages.contracts
        self._agreement = task.figures(self._contracts)  # of results with inputs

    def figure_names(self) -> list[str]:
        of_sets = distance_names(self._extractor)
        return [*of_sets, *BETTER, *self._distances, *self._agreement, COLOURFULNESS_SHARE]

    def check(self, fewest: int, most: int, progress: NamedProgress) -> None:
        if most > len(self._held_out):
            raise DataError(
                f"{most} images were requested, but there are {len(self._held_out)} {REAL}."
            )
        self._held_out.check(most, self._contracts[-1].space, progress)

    def real_features(self, progress: NamedProgress) -> None:
        return None

    def run(self, settings: Settings, places: Sequence[int]) -> CandidateImages:
        device = self._pipeline.device
        space = self._contracts[-1].space
        builders = [ImageSetBuilder(self._extractor, device, space=space) for _ in range(2)]
        figures: dict[str, list[float]] = {}
        seconds, samples = [], []
        for place in places:
            inputs, truth = pairs(self._held_out, [place], self._contracts)
            start_s = clock_s(device)
            result = self._result(settings, inputs, place)
            seconds.append(clock_s(device) - start_s)
            for name, value in self._figures(result, truth, inputs).items():
                figures.setdefault(name, []).append(value)
            for builder, image in zip(builders, (result, truth), strict=True):
                builder.add(image)
            samples.append(to_uint8(as_rgb(result, space)))
        features, real_features = (builder.finish().features for builder in builders)
        return CandidateImages(
            features=features,
            real_features=real_features,
            seconds=torch.tensor(seconds),
            figures={name: torch.tensor(values) for name, values in figures.items()},
            samples=torch.cat(samples[:MOST_SAMPLES]),
        )

    def _result(self, settings: Settings, inputs: Inputs, place: int) -> Tensor:
        """The result (1, C, H, W) for one picture, rounded as files hold it."""
        stages = [
            stage.with_sampling(settings[name]) for name, stage in self._pipeline.stages.items()
        ]
        result = self._contracts[-1].space.rounded(
            self._task.run(stages, inputs, self._seed + place)[None]
        )
        check_finite(result, "the pipeline")
        return result

    def _figures(self, result: Tensor, truth: Tensor, inputs: Inputs) -> dict[str, float]:
        """The figures of one result (1, C, H, W) beside its original."""
        space = self._contracts[-1].space
        figures = pair_values(result, truth, self._distances, space)
        figures |= {name: figure(result, inputs) for name, figure in self._agreement.items()}
        figures[COLOURFULNESS] = float(colourfulness(as_rgb(result, space)))
        figures[REAL_COLOURFULNESS] = float(colourfulness(as_rgb(truth, space)))
        return figures
