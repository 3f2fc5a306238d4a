"""Measures what a pipeline makes as a set beside held-out pictures: the whole, and each stage.

Every stage is measured twice at its own size: alone, given inputs made from held-out pictures, and
in the chain, given what the stages before it made. The difference is what those stages cost. The
first stage has none before it, so it is measured once.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from cascade.devices import wait_for
from cascade.errors import DataError
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
    """What a stage made, and how long it took for each image, the stages before it included."""

    images: ImageSet
    seconds_per_image: float


@final
class Clock:
    """Seconds that each stage takes, by a pipeline's callback after every step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def start(self) -> None:
        """The first stage begins now."""
        self._last_s = time.perf_counter()

    def on_step(self, pipeline: Any, step: int, timestep: int, kwargs: dict[str, Any]) -> None:
        """Count the time since the last step for the stage that is sampling."""
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
        pipeline: to measure, on its device.
        held_out: pictures that it was not trained on.
        training: pictures that it was trained on, to look for copies of them; None to skip that.
        extractor: of the features.
        num_images: how many to make.
        seed: of the first image.
        progress: called as the work goes on.
    """

    pipeline: CascadePipeline
    held_out: RealPictures
    training: RealPictures | None
    extractor: FeatureExtractor
    num_images: int
    seed: int
    progress: NamedProgress

    def measure(self) -> Measurements:
        """Measure the pipeline.

        Raises:
            DataError: if there are too few pictures, or one is damaged or too small.
        """
        check_enough(self.num_images, len(self.held_out))
        spaces = {name: stage.space for name, stage in self.pipeline.stages.items()}
        real = {name: self._read(self.held_out, space) for name, space in spaces.items()}
        *_, last = spaces
        training = None if self.training is None else self._read(self.training, spaces[last])
        made, settings = self._make(self.pipeline, "whole pipeline")
        copies = []
        if training is not None:
            copies = copy_scores(self.extractor, made[last].images, real[last], training)
        return Measurements(
            measured=[
                *self._stages(made, real),
                *self._halves(real[last], spaces[last]),
                self._measured(
                    "whole pipeline", "noise", made[last], real[last], spaces[last], copies
                ),
            ],
            settings=settings,
            sheets=self._sheets(made, real[last], training, spaces[last]),
        )

    def _read(self, pictures: RealPictures, space: Space) -> ImageSet:
        device = self.pipeline.device
        return pictures.image_set(space, self.extractor, device=device, progress=self.progress)

    def _stages(self, made: Mapping[str, Made], real: Mapping[str, ImageSet]) -> list[Measured]:
        """The stages of a chain of several, but for the whole chain."""
        first, *later = self.pipeline.stages.names
        if not later:
            return []
        space = self.pipeline.stages[first].space
        measured = [self._measured(first, "noise", made[first], real[first], space)]
        for name in later:
            contract = self.pipeline.stages[name].contract
            given, space = f"{REAL} of {contract.description}", contract.space
            subject = f"{name}, alone"
            alone = self._make_alone(name, subject)
            measured.append(self._measured(subject, given, alone, real[name], space))
            if name != later[-1]:
                subject = f"up to {name}"
                measured.append(self._measured(subject, "the chain", made[name], real[name], space))
        return measured

    def _make_alone(self, name: str, subject: str) -> Made:
        """One stage's images, made from held-out pictures."""
        alone = CascadePipeline.from_stages({name: self.pipeline.stages[name]})
        alone.set_progress_bar_config(disable=True)
        return self._make(alone, subject)[0][name]

    def _make(
        self, pipeline: CascadePipeline, subject: str
    ) -> tuple[dict[str, Made], Mapping[str, Any]]:
        """Each stage's images when a pipeline runs, and how the stages sampled.

        It gets what a user would give for held-out pictures, which repeat once all were used.
        """
        clock, count = Clock(), self.num_images
        builders = {
            name: ImageSetBuilder(self.extractor, pipeline.device) for name in pipeline.stages.names
        }
        settings: Mapping[str, Any] = {}
        for first in range(0, count, AT_A_TIME):
            self.progress(subject, first, count)
            part = range(first, min(first + AT_A_TIME, count))
            result = self._run(pipeline, part, clock)
            settings = result.settings
            images = {**result.intermediates, pipeline.stages.names[-1]: result.images}
            for name, builder in builders.items():
                builder.add(images[name])
        self.progress(subject, count, count)
        made, seconds = {}, 0.0
        for name, builder in builders.items():
            seconds += clock.seconds[name]
            made[name] = Made(builder.finish(), seconds / count)
        return made, settings

    def _run(self, pipeline: CascadePipeline, part: range, clock: Clock) -> CascadeOutput:
        places = [number % len(self.held_out) for number in part]
        inputs = self.held_out.inputs(places, pipeline.stages.contracts, damaged=False)
        clock.start()
        result = pipeline(
            len(part),
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
        given: str,
        made: Made,
        real: ImageSet,
        space: Space,
        further: Sequence[Score] = (),
    ) -> Measured:
        """The figures of one set of images beside real ones of the same size."""
        scores = [
            *distance_scores(self.extractor, made.images, real, REAL),
            *coverage_scores(self.extractor, made.images, real, REAL),
            *colour_scores(made.images, real, REAL),
        ]
        return Measured(
            subject=subject,
            given=given,
            size_px=space.longer_px,
            seconds_per_image=made.seconds_per_image,
            scores=(*scores, *further),
        )

    def _halves(self, real: ImageSet, space: Space) -> list[Measured]:
        """Figures of real pictures beside others, which is the floor at half of the numbers."""
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
                given="",
                size_px=space.longer_px,
                seconds_per_image=None,
                scores=tuple(scores),
            )
        ]

    def _sheets(
        self, made: Mapping[str, Made], real: ImageSet, training: ImageSet | None, space: Space
    ) -> list[Sheet]:
        sheets = [samples_sheet(f"samples of {n}", each.images) for n, each in made.items()]
        sheets.append(samples_sheet(REAL, real))
        if self.training is not None and training is not None:
            samples = list(made.values())[-1].images
            sheets.append(neighbours_sheet(samples, training, self.training, space))
        return sheets


def check_enough(num_images: int, held_out: int) -> None:
    """Check that there are as many images as the figures of sets need.

    Raises:
        DataError: if there are not.
    """
    if min(num_images, held_out) < FEWEST_FOR_COVERAGE:
        raise DataError(
            f"an evaluation needs at least {FEWEST_FOR_COVERAGE} held-out pictures and as many "
            f"samples, got {held_out} and {num_images}; hundreds of both make the figures firm."
        )


def labels_of(
    pipeline: CascadePipeline, held_out: RealPictures, part: Sequence[int]
) -> list[Mapping[str, str]] | None:
    """The labels of held-out pictures, so that both sets show the same classes.

    Args:
        pipeline: that will make pictures.
        held_out: the pictures, which repeat once all were used.
        part: numbers of the pictures to make.

    Returns:
        For each, the labels of the pipeline's fields; None if it has none.
    """
    if pipeline.labels is None:
        return None
    labels = [held_out.labels(number % len(held_out)) for number in part]
    fields = pipeline.labels.fields
    return [{field: each[field] for field in fields if field in each} for each in labels]
