"""The best settings of a pipeline, found by running the whole chain on held-out pictures.

The augmentation level of an upsampler, for one, must be chosen on the images that the stages before
it make (Ho et al. 2021, arXiv 2106.15282, section 3; Saharia et al. 2022, arXiv 2205.11487,
appendix), which no figure of a stage alone can tell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from cascade.data.source import ImageSource
from cascade.errors import ContractError, DataError
from cascade.evaluation.bootstrap import warn_of_few
from cascade.evaluation.evaluate import distances_on, task_of
from cascade.evaluation.features import FeatureExtractor, find_extractor
from cascade.evaluation.findings import REAL
from cascade.evaluation.generated import check_enough
from cascade.evaluation.pictures import Pictures, Report
from cascade.evaluation.restored import FEWEST_FOR_DISTANCES, TRUTH
from cascade.pipeline import CascadePipeline
from cascade.sampling.settings import SamplingSettings
from cascade.saving.components import weights_digest
from cascade.sweeping.axes import Candidate, combine, one_at_a_time, read_axes, usual_axes
from cascade.sweeping.making import GeneratedMaking, Making, NotFiniteError, RestoredMaking
from cascade.sweeping.results import (
    Outcome,
    Preference,
    Sweep,
    check_figure,
    choose,
    in_order,
    measure,
    merit,
)
from cascade.sweeping.rounds import Round, plan_rounds
from cascade.sweeping.seen import Seen, load_seen
from cascade.training.provenance import command_line, hardware, versions

USUAL_IMAGES = 100
MOST_IMAGES = 1000


def sweep(
    pipeline: CascadePipeline,
    data: str | Path | ImageSource,
    axes: Sequence[str] = (),
    *,
    out: Path,
    name: str = "pipeline",
    num_images: int | None = None,
    budget_images: int | None = None,
    by: str = "KID",
    prefer: Preference = "quality",
    seed: int = 0,
    extractor: str | FeatureExtractor = "lite0",
    extractor_path: Path | None = None,
    cache_dir: Path | None = None,
    report: Report | None = None,
) -> Sweep:
    """Try settings of a pipeline on held-out pictures.

    Args:
        pipeline: on its device.
        data: a folder, shards or a source of held-out pictures.
        axes: what to try in all combinations, such as `steps=10,20` or
            `upsampler.augmentation_level=0,0.1`; default: guidance, temperature, augmentation
            level, steps and samplers, where a stage has a use for them, one change at a time.
        out: folder that keeps what was measured, so that the same call again goes on.
        name: of the pipeline.
        num_images: of one combination; with a budget, at most. Default: 100; with a budget as many
            as are held out, at most 1000.
        budget_images: of all combinations together: successive halving.
        by: the figure that decides, by the beginning of its name: `KID`, `FD`, and of pipelines
            that take pictures `PSNR`, `SSIM`, `PD`.
        prefer: see `Sweep`.
        seed: of the first image.
        extractor: as for `cascade.evaluate`.
        extractor_path: of its weights.
        cache_dir: where features of real pictures are kept; default: the user's cache folder.
        report: called with what is being done, how much of it is done, and of how much.

    Raises:
        ContractError: if an axis, the budget or the figure does not fit the pipeline, or the
            pipeline's own settings give pictures of which nothing can be measured.
        DataError: if there are too few pictures, or one is damaged or too small.
        OutputError: if the folder cannot be written.
    """
    generates = task_of(pipeline) == "generate"
    vocabulary = pipeline.labels if generates else None
    held_out = Pictures(data, name=REAL, vocabulary=vocabulary, cache_dir=cache_dir)
    if axes:
        candidates = combine(read_axes(axes, pipeline), pipeline)
    else:
        candidates = one_at_a_time(usual_axes(pipeline), pipeline)
    most = _most_images(num_images, budget_images, len(held_out), generates=generates)
    rounds = plan_rounds(len(candidates), most_images=most, budget_images=budget_images)
    if isinstance(extractor, str):
        extractor = find_extractor(extractor, extractor_path)
    distances = {} if generates else distances_on(pipeline.device)
    check_figure(by, pipeline, extractor, distances)
    last = pipeline.stages[pipeline.stages.names[-1]].contract
    told = report or (lambda what, done, total: None)
    real = None
    if generates:
        check_enough(rounds[0].images, len(held_out))
        seen = held_out.observe(last, extractor, device=pipeline.device, report=told)
        real = seen.features
        making: Making = GeneratedMaking(pipeline, held_out, extractor, seed)
    else:
        held_out.check(most, last, told)
        making = RestoredMaking(pipeline, held_out, extractor, distances, seed)
    kept = Kept(making, out / "seen", _basis(pipeline, held_out, extractor, seed))
    found, failed = _Rounds(kept, extractor, real, by, told).run(candidates, rounds)
    own = {name: stage.sampling for name, stage in pipeline.stages.items()}
    outcomes = in_order(found, by, own)
    return Sweep(
        pipeline=name,
        data=held_out.path,
        seed=seed,
        by=by,
        prefer=prefer,
        rounds=rounds,
        outcomes=outcomes,
        today=_today(outcomes, own),
        best=choose(outcomes, by, prefer),
        notes=[*failed, *held_out.notes(), *warn_of_few(rounds[-1].images, extractor.dim)],
        about={"command": command_line(), "hardware": hardware(), "versions": versions()},
    )


def _most_images(
    num_images: int | None, budget_images: int | None, held_out: int, *, generates: bool
) -> int:
    """Images of one combination, at most.

    Raises:
        DataError: if there are too few, or fewer are held out than are to be restored.
    """
    usual = USUAL_IMAGES if budget_images is None else MOST_IMAGES
    wanted = min(held_out, usual) if num_images is None else num_images
    if min(held_out, wanted) < FEWEST_FOR_DISTANCES:
        raise DataError(
            f"a sweep needs at least {FEWEST_FOR_DISTANCES} {REAL} and as many images of each "
            f"combination, got {held_out} and {wanted}."
        )
    if not generates and wanted > held_out:
        raise DataError(f"{wanted} pictures were asked for, but there are {held_out} {REAL}.")
    return wanted


def _today(outcomes: Sequence[Outcome], own: Mapping[str, SamplingSettings]) -> int:
    """Place of the settings that the pipeline has.

    Raises:
        ContractError: if nothing could be measured of its pictures.
    """
    for place, each in enumerate(outcomes):
        if each.candidate.settings == own:
            return place
    raise ContractError(
        "with the settings as they are, the pipeline's pictures are not finite numbers; change "
        "them, or train it again."
    )


def _basis(
    pipeline: CascadePipeline, held_out: Pictures, extractor: FeatureExtractor, seed: int
) -> list[str]:
    """All that images and what is seen of them depend on, but for the settings."""
    stages = {name: stage.config() | {"sampling": {}} for name, stage in pipeline.stages.items()}
    labels = [held_out.labels(place) for place in range(len(held_out))]
    return [
        weights_digest(pipeline.stages),
        json.dumps([stages, labels]),
        extractor.fingerprint(),
        pipeline.device.type,
        str(seed),
        *held_out.digests,
    ]


class Kept:
    """Makes images, and keeps what was seen of them in files from which it goes on.

    Args:
        making: makes them.
        folder: of the files, each under a hash of all that its images depend on.
        basis: that, but for the settings.
    """

    def __init__(self, making: Making, folder: Path, basis: Sequence[str]) -> None:
        self._making = making
        self._folder = folder
        self._basis = basis

    def seen(self, candidate: Candidate, count: int) -> Seen:
        """What is seen of the first `count` images of a combination.

        Raises:
            OutputError: if the file cannot be written.
        """
        settings = {name: asdict(each) for name, each in candidate.settings.items()}
        key = hashlib.sha256("\n".join([*self._basis, json.dumps(settings)]).encode()).hexdigest()
        file = self._folder / f"{key[:32]}.safetensors"
        seen = load_seen(file)
        while seen is None or len(seen) < count:
            first = 0 if seen is None else len(seen)
            places = range(first, min(first + self._making.at_a_time, count))
            more = self._making.make(candidate.settings, places)
            seen = more if seen is None else seen.followed_by(more)
            seen.save(file)
        return seen.first(count)


@dataclass(frozen=True)
class _Rounds:
    """Measures combinations, round after round."""

    kept: Kept
    extractor: FeatureExtractor
    real: Tensor | None
    by: str
    report: Report

    def run(
        self, candidates: Sequence[Candidate], rounds: Sequence[Round]
    ) -> tuple[list[Outcome], list[str]]:
        """All outcomes, and of which combinations nothing could be measured."""
        outcomes: dict[int, Outcome] = {}
        failed = []
        staying = list(range(len(candidates)))
        for number, each in enumerate(rounds):
            what = "settings" if len(rounds) == 1 else f"round {number + 1} of {len(rounds)}"
            for done, place in enumerate(staying):  # as they come, to run first stages once
                self.report(what, done, len(staying))
                try:
                    before = outcomes.pop(place, None)
                    outcomes[place] = self._measure(candidates[place], each.images, before)
                except NotFiniteError as error:
                    failed.append(f"{candidates[place].text()}: left out, since {error}")
            staying = [place for place in staying if place in outcomes]
            self.report(what, len(staying), len(staying))
            if number + 1 < len(rounds):
                best = sorted(staying, key=lambda place: merit(outcomes[place], self.by))
                staying = sorted(best[: rounds[number + 1].candidates])
        return list(outcomes.values()), failed

    def _measure(self, candidate: Candidate, images: int, before: Outcome | None) -> Outcome:
        seen = self.kept.seen(candidate, images)
        reference = TRUTH if self.real is None else REAL
        scores = measure(seen, self.real, self.extractor, reference)
        return Outcome(
            candidate=candidate,
            scores=scores,
            first_scores=scores if before is None else before.first_scores,
            seconds_per_image=float(seen.seconds.median()),
            shown=seen.shown,
        )
