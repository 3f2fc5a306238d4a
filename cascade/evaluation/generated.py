"""A pipeline that makes pictures from noise, beside held-out pictures: whole, and stage by stage.

Every stage is measured twice at its own size: alone, given held-out pictures made small as its
contract says, and in the chain, given what the stages before it made. What lies between the two is
what those stages cost. A base stage is given nothing, so the two are one.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cascade.contract import Contract
from cascade.devices import wait_for
from cascade.errors import DataError
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.findings import REAL, Findings
from cascade.evaluation.observation import Observation, Observer
from cascade.evaluation.pictures import Pictures, Report
from cascade.evaluation.scores import Measured
from cascade.evaluation.set_scores import (
    FEWEST_FOR_COVERAGE,
    colour_scores,
    copy_scores,
    coverage_scores,
    distance_scores,
    halves,
)
from cascade.pipeline import CascadeOutput, CascadePipeline

MADE_AT_A_TIME = 16


@dataclass(frozen=True)
class Made:
    """What a stage made, and how long it took for each image."""

    seen: Observation
    seconds_per_image: float


class Clock:
    """Seconds that each stage takes, by a pipeline's callback after every step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def start(self) -> None:
        """The first stage begins now."""
        self._last_s = time.perf_counter()

    def on_step(self, pipeline: Any, step: int, timestep: int, kwargs: dict[str, Any]) -> None:
        """Count the time since the last step to the stage at hand."""
        wait_for(pipeline.device)
        now = time.perf_counter()
        name = pipeline.current_stage
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last_s
        self._last_s = now


def evaluate_generated(
    pipeline: CascadePipeline,
    held_out: Pictures,
    training: Pictures | None,
    extractor: FeatureExtractor,
    *,
    num_images: int,
    seed: int,
    report: Report,
) -> Findings:
    """Measure a pipeline whose first stage is a base stage.

    Args:
        pipeline: to measure, on its device.
        held_out: pictures that it was not trained on.
        training: pictures that it was trained on, or None.
        extractor: of the features.
        num_images: how many to make.
        seed: of the first image.
        report: called with what is being done, how much of it is done, and of how much.

    Raises:
        DataError: if there are too few pictures, or one is damaged or too small.
    """
    check_enough(num_images, len(held_out))
    contracts = {name: stage.contract for name, stage in pipeline.stages.items()}
    looking = {"device": pipeline.device, "report": report}
    real = {
        name: held_out.observe(contract, extractor, **looking)
        for name, contract in contracts.items()
    }
    found = Findings()
    *_, last = contracts
    if training is not None:
        found.training = training.observe(contracts[last], extractor, **looking)
    made = _make_chained(pipeline, held_out, extractor, num_images, seed, report, found)
    first, *later = contracts
    measure = _Measuring(extractor, contracts, real)
    if later:
        found.measured.append(measure.of(first, f"{first}", "noise", made[first]))
    for name in later:
        alone = _make_alone(pipeline, name, held_out, extractor, num_images, seed, report)
        text = f"{REAL} of {contracts[name].taken}"
        found.measured.append(measure.of(name, f"{name}, alone", text, alone))
        if name != later[-1]:
            found.measured.append(measure.of(name, f"up to {name}", "the chain", made[name]))
    found.measured += _real_halves(extractor, real[last], contracts[last])
    whole = measure.of(last, "whole pipeline", "noise", made[last])
    if found.training is not None:
        copies = copy_scores(extractor, made[last].seen, real[last], found.training)
        whole = replace(whole, scores=(*whole.scores, *copies))
    found.measured.append(whole)
    found.samples = made[last].seen
    found.pictures = {f"Samples of {name}": each.seen.shown for name, each in made.items()}
    found.pictures[REAL.capitalize()] = real[last].shown
    return found


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


def _make_chained(
    pipeline: CascadePipeline,
    held_out: Pictures,
    extractor: FeatureExtractor,
    num_images: int,
    seed: int,
    report: Report,
    found: Findings,
) -> dict[str, Made]:
    """Every stage's images when the whole pipeline runs, with the labels of held-out pictures."""
    clock = Clock()
    observers = {name: Observer(extractor, pipeline.device) for name in pipeline.stages.names}
    *_, last = observers
    for part in _parts(num_images):
        report("whole pipeline", part[0], num_images)
        clock.start()
        result = pipeline(
            seeds=[seed + i for i in part],
            num_images=len(part),
            labels=labels_of(pipeline, held_out, part),
            keep_intermediates=True,
            output_type="pt",
            callback_on_step_end=clock.on_step,
        )
        assert isinstance(result, CascadeOutput)
        found.settings = result.settings
        for name, images in {**result.intermediates, last: result.images}.items():
            observers[name].add(images)
    report("whole pipeline", num_images, num_images)
    made, seconds = {}, 0.0
    for name, observer in observers.items():
        seconds += clock.seconds[name]
        made[name] = Made(observer.finish(), seconds / num_images)
    return made


def _make_alone(
    pipeline: CascadePipeline,
    name: str,
    held_out: Pictures,
    extractor: FeatureExtractor,
    num_images: int,
    seed: int,
    report: Report,
) -> Made:
    """One stage's images when it is given held-out pictures, each again once all were used."""
    stage = pipeline.stages[name]
    alone = CascadePipeline.from_stages({name: stage})
    alone.set_progress_bar_config(disable=True)
    observer, clock = Observer(extractor, pipeline.device), Clock()
    for part in _parts(num_images):
        report(f"{name}, alone", part[0], num_images)
        _, given = held_out.read([i % len(held_out) for i in part], stage.contract)
        clock.start()
        result = alone(
            seeds=[seed + i for i in part],
            image=given,
            labels=labels_of(alone, held_out, part),
            output_type="pt",
            callback_on_step_end=clock.on_step,
        )
        assert isinstance(result, CascadeOutput)
        observer.add(result.images)
    report(f"{name}, alone", num_images, num_images)
    return Made(observer.finish(), clock.seconds[name] / num_images)


def _parts(num_images: int) -> list[range]:
    firsts = range(0, num_images, MADE_AT_A_TIME)
    return [range(first, min(first + MADE_AT_A_TIME, num_images)) for first in firsts]


def labels_of(
    pipeline: CascadePipeline, held_out: Pictures, part: Sequence[int]
) -> list[Mapping[str, str]] | None:
    """The labels of held-out pictures, so that both sets show the same classes.

    Args:
        pipeline: that will make pictures.
        held_out: each of which comes again once all were used.
        part: places of the pictures to make.

    Returns:
        For each, the labels that the pipeline knows; None if it knows none.
    """
    if pipeline.labels is None:
        return None
    found = [held_out.labels(i % len(held_out)) for i in part]
    return [{f: each[f] for f in pipeline.labels.fields if f in each} for each in found]


@dataclass(frozen=True)
class _Measuring:
    """Compares what stages made with held-out pictures of the same size."""

    extractor: FeatureExtractor
    contracts: Mapping[str, Contract]
    real: Mapping[str, Observation]

    def of(self, name: str, subject: str, given: str, made: Made) -> Measured:
        """The figures of one set of images."""
        seen, real = made.seen, self.real[name]
        scores = [
            *distance_scores(self.extractor, seen, real, REAL),
            *coverage_scores(self.extractor, seen, real, REAL),
            *colour_scores(seen, real, REAL),
        ]
        return Measured(
            subject=subject,
            given=given,
            size_px=self.contracts[name].size_px,
            seconds_per_image=made.seconds_per_image,
            scores=tuple(scores),
        )


def _real_halves(
    extractor: FeatureExtractor, real: Observation, contract: Contract
) -> list[Measured]:
    """What real pictures score beside others: the floor, at half of the numbers."""
    if len(real) < 2 * FEWEST_FOR_COVERAGE:
        return []
    first, second = halves(real)
    scores = [
        *distance_scores(extractor, first, second, "other held-out pictures"),
        *coverage_scores(extractor, first, second, "other held-out pictures"),
    ]
    return [
        Measured(
            subject="real, half against half",
            given="",
            size_px=contract.size_px,
            seconds_per_image=None,
            scores=tuple(scores),
        )
    ]
