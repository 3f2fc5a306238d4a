"""Compares the pictures that a pipeline makes from noise, as a set, with held-out pictures.

Every stage is measured twice at its own size: alone, with inputs made from held-out pictures, and
in the chain, with the results of the stages before it. The difference is what those stages cost.
The first stage is measured once.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.latents import Latents
from cascade.devices import wait_for
from cascade.errors import DataError
from cascade.evaluation.alignment.captions import text_of
from cascade.evaluation.alignment.judge import AlignmentJudge
from cascade.evaluation.alignment.model import AlignmentModel
from cascade.evaluation.feature_cache import collect_images
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.figures import Measured, Score
from cascade.evaluation.image_set import ImageSet, ImageSetBuilder
from cascade.evaluation.progress import NamedProgress
from cascade.evaluation.real_pictures import REAL, RealPictures
from cascade.evaluation.results import Measurements, Sheet
from cascade.evaluation.set_figures import (
    FEWEST_FOR_COVERAGE,
    colour_scores,
    copy_scores,
    coverage_scores,
    distance_scores,
)
from cascade.evaluation.sheets import neighbours_sheet, samples_sheet
from cascade.pipeline import CascadeOutput, CascadePipeline
from cascade.space import Space

AT_A_TIME = 16
OTHERS = f"other {REAL}"


@dataclass(frozen=True)
class Made:
    """The images of a stage.

    Attributes:
        images: features and colours of all its images.
        seconds_per_image: wall time in seconds of this stage and the stages before it.
    """

    images: ImageSet
    seconds_per_image: float


@final
class Clock:
    """Measures the seconds of each stage, as a callback of a pipeline.

    Attributes:
        seconds: wall time of each stage so far, by stage name.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def start(self) -> None:
        """Start the time of the first stage."""
        self._last_s = time.perf_counter()

    def on_step(self, pipeline: Any, step: int, timestep: int, kwargs: dict[str, Any]) -> None:
        """Add the time since the last step to the stage that is sampling."""
        wait_for(pipeline.device)
        now = time.perf_counter()
        name = pipeline.current_stage
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last_s
        self._last_s = now


@final
@dataclass(frozen=True, kw_only=True)
class SetMeasurer:
    """Makes pictures with a pipeline and compares them with held-out ones as a set.

    Attributes:
        pipeline: the pipeline to measure, on its device.
        held_out: pictures that it was not trained on.
        training: pictures that it was trained on, to look for copies of them; None to skip that.
        extractor: computes the features of the images.
        judge: judges the images by the captions of the held-out pictures; None to skip that.
        num_images: number of images to make.
        seed: seed of the first image; each further image has the next seed.
        progress: called while the measurement runs.
    """

    pipeline: CascadePipeline
    held_out: RealPictures
    training: RealPictures | None
    extractor: FeatureExtractor
    judge: AlignmentJudge | None
    num_images: int
    seed: int
    progress: NamedProgress

    def measure(self) -> Measurements:
        """Measure the pipeline.

        Raises:
            DataError: if there are too few pictures, or one is damaged or too small.
            WeightsError: if a stage makes values that are not finite.
        """
        check_enough(self.num_images, len(self.held_out))
        spaces = pixel_spaces(self.pipeline)
        real = {name: self._read(self.held_out, space) for name, space in spaces.items()}
        *_, last = spaces
        training = None if self.training is None else self._read(self.training, spaces[last])
        results, settings = self._make(self.pipeline, "whole pipeline")
        copies = []
        if training is not None:
            copies = copy_scores(self.extractor, results[last].images, real[last], training)
        return Measurements(
            measured=[
                *self._stages(results, real),
                *self._halves(real[last], spaces[last]),
                self._measured(
                    "whole pipeline", "noise", results[last], real[last], spaces[last], copies
                ),
            ],
            settings=settings,
            notes=[] if self.judge is None else self.judge.notes(),
            sheets=self._sheets(results, real[last], training, spaces[last]),
        )

    def _read(self, pictures: RealPictures, space: Space) -> ImageSet:
        return collect_images(
            pictures,
            space,
            self.extractor,
            device=self.pipeline.device,
            progress=self.progress,
            alignment=self._alignment if pictures is self.held_out else None,
        )

    @property
    def _alignment(self) -> AlignmentModel | None:
        return None if self.judge is None else self.judge.model

    def _stages(self, results: Mapping[str, Made], real: Mapping[str, ImageSet]) -> list[Measured]:
        """Measure the stages of a chain, except the whole chain; none if there is one stage."""
        first, *later = self.pipeline.stages.names
        if not later:
            return []
        space = self.pipeline.stages[first].space
        subjects = []
        if first in real:  # latents are no pictures
            subjects.append(self._measured(first, "noise", results[first], real[first], space))
        for name in later:
            contract = self.pipeline.stages[name].contract
            input_text, space = f"{REAL} of {contract.description}", contract.space
            subject = f"{name}, alone"
            alone = self._make_alone(name, subject)
            subjects.append(self._measured(subject, input_text, alone, real[name], space))
            if name != later[-1]:
                result = results[name]
                subjects.append(
                    self._measured(f"up to {name}", "the chain", result, real[name], space)
                )
        return subjects

    def _make_alone(self, name: str, subject: str) -> Made:
        """Make images with one stage, whose inputs come from held-out pictures."""
        alone = CascadePipeline.from_stages({name: self.pipeline.stages[name]})
        alone.set_progress_bar_config(disable=True)
        return self._make(alone, subject, is_alone=True)[0][name]

    def _make(
        self, pipeline: CascadePipeline, subject: str, *, is_alone: bool = False
    ) -> tuple[dict[str, Made], Mapping[str, Any]]:
        """Make images with a pipeline, whose inputs come from held-out pictures.

        If there are fewer pictures than images to make, they repeat.

        Returns:
            The images of each stage by its name, and the sampling settings of each stage.
        """
        clock, count = Clock(), self.num_images
        builders = {
            name: ImageSetBuilder(self.extractor, pipeline.device, self._alignment, space)
            for name, space in pixel_spaces(pipeline).items()
        }
        settings: Mapping[str, Any] = {}
        for first in range(0, count, AT_A_TIME):
            self.progress(subject, first, count)
            part = range(first, min(first + AT_A_TIME, count))
            result = self._run(pipeline, part, clock, is_alone=is_alone)
            settings = result.settings
            images = {**result.intermediates, pipeline.stages.names[-1]: result.images}
            for name, builder in builders.items():
                builder.add(images[name])
        self.progress(subject, count, count)
        results, seconds = {}, 0.0
        for name in pipeline.stages.names:
            seconds += clock.seconds[name]
            if name in builders:
                results[name] = Made(builders[name].finish(), seconds / count)
        return results, settings

    def _run(
        self, pipeline: CascadePipeline, part: range, clock: Clock, *, is_alone: bool
    ) -> CascadeOutput:
        places = [number % len(self.held_out) for number in part]
        inputs = self.held_out.inputs(places, pipeline.stages.contracts, degraded=False)
        first = pipeline.stages.first
        if is_alone and isinstance(first, AutoencoderStage):  # restores the pictures
            latents = first.encode(self.held_out.read(places, first.space), precision="auto")
            inputs = inputs.with_value(Latents.input_name, latents)
        clock.start()
        result = pipeline(
            num_images=len(part),
            seeds=[self.seed + number for number in part],
            labels=labels_of(pipeline, self.held_out, part),
            image=inputs.get("image"),
            inputs=inputs.with_value("image", None).values,
            keep_intermediates=True,
            output_type="pt",
            callback_on_step_end=clock.on_step,
        )
        assert isinstance(result, CascadeOutput)
        return result

    def _measured(
        self,
        subject: str,
        input_text: str,
        result: Made,
        real: ImageSet,
        space: Space,
        further: Sequence[Score] = (),
    ) -> Measured:
        """Measure one set of images beside real ones of the same size."""
        scores = [
            *distance_scores(self.extractor, result.images, real, REAL),
            *coverage_scores(self.extractor, result.images, real, REAL),
            *colour_scores(result.images, real, REAL),
            *self._alignment_scores(result.images, real),
        ]
        return Measured(
            subject=subject,
            input=input_text,
            size_px=space.longer_px,
            seconds_per_image=result.seconds_per_image,
            scores=(*scores, *further),
        )

    def _alignment_scores(self, images: ImageSet, real: ImageSet) -> list[Score]:
        if self.judge is None or images.embeddings is None or real.embeddings is None:
            return []
        return self.judge.scores(images.embeddings, real.embeddings)

    def _halves(self, real: ImageSet, space: Space) -> list[Measured]:
        """Measure half of the real pictures beside the other half, as a bound for samples."""
        if len(real) < 2 * FEWEST_FOR_COVERAGE:
            return []
        halves = real.halves()
        scores = [
            *distance_scores(self.extractor, *halves, OTHERS),
            *coverage_scores(self.extractor, *halves, OTHERS),
        ]
        return [
            Measured(
                subject="real, half against half",
                input="",
                size_px=space.longer_px,
                seconds_per_image=None,
                scores=tuple(scores),
            )
        ]

    def _sheets(
        self, results: Mapping[str, Made], real: ImageSet, training: ImageSet | None, space: Space
    ) -> list[Sheet]:
        sheets = [samples_sheet(f"samples of {n}", each.images) for n, each in results.items()]
        sheets.append(samples_sheet(REAL, real))
        if self.training is not None and training is not None:
            samples = list(results.values())[-1].images
            sheets.append(neighbours_sheet(samples, training, self.training, space))
        return sheets


def pixel_spaces(pipeline: CascadePipeline) -> dict[str, Space]:
    """The spaces of the stages that make pictures, by their names."""
    spaces = {name: stage.space for name, stage in pipeline.stages.items()}
    return {name: space for name, space in spaces.items() if space.kind == "pixels"}


def check_enough(num_images: int, held_out: int) -> None:
    """Check that there are enough images for the figures of sets.

    Args:
        num_images: number of samples.
        held_out: number of held-out pictures.

    Raises:
        DataError: if there are too few of either.
    """
    if min(num_images, held_out) < FEWEST_FOR_COVERAGE:
        raise DataError(
            f"an evaluation needs at least {FEWEST_FOR_COVERAGE} held-out images and as many "
            f"samples, got {held_out} and {num_images}; use hundreds of both for reliable "
            "figures."
        )


def labels_of(
    pipeline: CascadePipeline, held_out: RealPictures, part: Sequence[int]
) -> list[Mapping[str, str]] | None:
    """Take the labels of held-out pictures, so that both sets show the same classes.

    Args:
        pipeline: the pipeline that will make images.
        held_out: the pictures; if there are fewer than images, they repeat.
        part: numbers of the images to make, from 0.

    Returns:
        For each image, the names of the pipeline's label fields; None if it has no labels. None
        too if it takes text: captions alone decide what the images show, as prompts do for users.
    """
    if pipeline.labels is None or text_of(pipeline) is not None:
        return None
    labels = [held_out.labels(number % len(held_out)) for number in part]
    fields = pipeline.labels.fields
    return [{field: each[field] for field in fields if field in each} for each in labels]
