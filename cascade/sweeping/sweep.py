"""Finds the best settings of a pipeline by running the whole chain on held-out pictures.

The whole chain is needed: the best augmentation level of an upsampler, for example, depends on the
images of the stages before it (Ho et al. 2021, arXiv 2106.15282; Saharia et al. 2022, arXiv
2205.11487, appendix), so no figure of that stage alone can show it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from cascade.arguments import real_number
from cascade.data.file_reading import FileReading
from cascade.data.source import ImageSource
from cascade.errors import ContractError, DataError
from cascade.evaluation.alignment.captions import read_captions, text_of
from cascade.evaluation.alignment.finding import find_judge
from cascade.evaluation.alignment.judge import AlignmentJudge
from cascade.evaluation.alignment.model import AlignmentModel
from cascade.evaluation.evaluate import check_measurable, check_pairs
from cascade.evaluation.extractors import find_extractor
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.measuring_pairs import FEWEST_FOR_DISTANCES
from cascade.evaluation.perceptual_distances import distances_on
from cascade.evaluation.progress import NamedProgress, no_progress
from cascade.evaluation.real_pictures import REAL, RealPictures
from cascade.evaluation.set_distances import warn_of_few
from cascade.pipeline import CascadePipeline
from cascade.sampling.settings import SamplingSettings
from cascade.saving.components import weights_digest
from cascade.sweeping.axes import read_axes
from cascade.sweeping.candidates import Candidate, combine, one_at_a_time
from cascade.sweeping.default_axes import default_axes
from cascade.sweeping.measuring import CandidateMeasurer, ImageStore
from cascade.sweeping.outcomes import Outcome, Preference, choose, in_order, named_figure
from cascade.sweeping.paired_runner import PairedRunner
from cascade.sweeping.results import Sweep
from cascade.sweeping.rounds import Round, plan_rounds
from cascade.sweeping.runner import Runner
from cascade.sweeping.set_runner import SetRunner
from cascade.tasks.table import task_of
from cascade.tasks.task import PairedTask
from cascade.training.provenance import command_line, hardware, versions

USUAL_IMAGES = 100
MOST_IMAGES = 1000
TOGETHER_FOR_SPEED = ("steps", "temperature")  # the best temperature of few steps is another one


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How a sweep compares settings.

    Attributes:
        name: name of the pipeline in the report.
        num_images: number of images of one candidate, or with a budget the largest number. Default:
            one per held-out picture, but at most 100, or 1000 with a budget.
        budget_images: largest number of images of all candidates together, for successive halving;
            None for no limit.
        by: beginning of the name of the figure that decides: `KID`, `FD`, and for pipelines that
            take pictures also `PSNR`, `SSIM`, `PD`; with `alignment` also `R@1`, `R@5`.
        prefer: `quality` for the candidate with the best figure; `speed` for the fastest of those
            that are as good within half of its interval, or within `tolerance`.
        tolerance: with `prefer="speed"`, the share of the best figure by which that of the chosen
            candidate may be worse, from 0 to below 1; None for half of its interval, which also
            counts if the interval holds zero.
        seed: seed of the first image; each further image has the next seed.
        extractor: `lite0`, `lite2`, `inception`, `clip`, `dinov2`, or one of your own.
        extractor_path: weights of `inception`, `clip` or `dinov2`; default: a download.
        alignment: a folder with an alignment tower or a CLIP, `clip` for a download, or a model of
            your own; only for a pipeline that makes images from prompts.
        cache_dir: folder for features of real pictures; default: the user's cache folder.
        pairs: the inputs of the held-out pictures, see `evaluate`; None to make them.
        range: the numbers in the files that become black and white, see `evaluate`.
        nodata: for bands, a number that stands for a missing one, see `evaluate`.
        axis: for bands, axis of a volume along which it is cut into slices, see `evaluate`.

    Raises:
        ContractError: if `prefer` has another value, the tolerance is out of range or has no
            effect, or there is a path for an extractor of your own.
    """

    name: str = "pipeline"
    num_images: int | None = None
    budget_images: int | None = None
    by: str = "KID"
    prefer: Preference = "quality"
    tolerance: float | None = None
    seed: int = 0
    extractor: str | FeatureExtractor = "lite0"
    extractor_path: Path | None = None
    alignment: str | Path | AlignmentModel | None = None
    cache_dir: Path | None = None
    pairs: str | None = None
    range: tuple[int, int] | None = None
    nodata: float | None = None
    axis: int | None = None

    def __post_init__(self) -> None:
        if self.prefer not in get_args(Preference):
            raise ContractError(
                f"prefer must be one of {get_args(Preference)}, got {self.prefer!r}."
            )
        if self.tolerance is not None:
            self._check_tolerance(real_number("tolerance", self.tolerance))
        if not isinstance(self.extractor, str) and self.extractor_path is not None:
            raise ContractError("extractor_path is for extractors by name; leave it out.")

    def _check_tolerance(self, tolerance: float) -> None:
        if not 0 <= tolerance < 1:
            raise ContractError(f"tolerance must be from 0 to below 1, got {tolerance:g}.")
        if self.prefer != "speed":
            raise ContractError(
                f"a tolerance is for the preference speed, got {self.prefer}; leave it out."
            )

    def find_extractor(self) -> FeatureExtractor:
        """The extractor of the features.

        Raises:
            CascadeError: if it cannot be loaded.
        """
        if isinstance(self.extractor, str):
            return find_extractor(self.extractor, self.extractor_path)
        return self.extractor

    def most_images(self, held_out: int) -> int:
        """The largest number of images of one candidate.

        Args:
            held_out: number of held-out pictures.

        Raises:
            DataError: if there are too few images or pictures for the figures.
        """
        usual = USUAL_IMAGES if self.budget_images is None else MOST_IMAGES
        count = min(held_out, usual) if self.num_images is None else self.num_images
        if min(held_out, count) < FEWEST_FOR_DISTANCES:
            raise DataError(
                f"a sweep needs at least {FEWEST_FOR_DISTANCES} {REAL} and as many images of each "
                f"combination, got {held_out} and {count}."
            )
        return count


def sweep(
    pipeline: CascadePipeline,
    data: str | Path | ImageSource,
    axes: Sequence[str] = (),
    *,
    out: Path,
    progress: NamedProgress | None = None,
    **options: Any,
) -> Sweep:
    """Try settings of a pipeline on held-out pictures.

    Args:
        pipeline: the pipeline, on its device.
        data: a folder, shards or a source of held-out pictures.
        axes: settings to try in all combinations, such as `steps=10,20` or
            `upsampler.augmentation_level=0,0.1`; default: guidance, temperature, augmentation
            level, steps and samplers, as far as they affect a stage, one change at a time; with
            `prefer="speed"` few steps, together with temperatures.
        out: folder that keeps the measured images, so that the same call resumes the sweep.
        progress: called as `progress(what, done, total)` while the sweep runs.
        options: fields of `SweepOptions`, such as `num_images`, `budget_images`, `by`, `prefer` and
            `seed`.

    Raises:
        ContractError: if an axis, the budget or the figure does not fit the pipeline, or the images
            of the pipeline's current settings are not finite.
        DataError: if there are too few pictures, or too few captions for the figure, or a picture
            is damaged or too small.
        CascadeError: if the extractor or the alignment model cannot be loaded.
        OutputError: if the folder cannot be written.
    """
    choice, progress = SweepOptions(**options), progress or no_progress
    check_measurable(pipeline)
    extractor = choice.find_extractor()
    held_out = _held_out(pipeline, data, choice)
    candidates = _candidates(pipeline, axes, choice.prefer)
    most = choice.most_images(len(held_out))
    rounds = plan_rounds(len(candidates), most_images=most, budget_images=choice.budget_images)
    judge = find_judge(pipeline, held_out, choice.alignment)
    runner = _runner(pipeline, held_out, extractor, choice.seed, judge)
    name = named_figure(choice.by, runner.figure_names())
    if judge is not None and name in judge.figure_names():
        judge.check(name, rounds[0].images)
    runner.check(rounds[0].images, most, progress)
    measurer = CandidateMeasurer(
        runner=runner,
        store=ImageStore(
            runner, out / "images", _basis(pipeline, held_out, extractor, choice, judge)
        ),
        extractor=extractor,
        by=choice.by,
        progress=progress,
    )
    outcomes = measurer.measure_all(candidates, rounds)
    notes = [
        *measurer.failures,
        *held_out.notes(most),
        *warn_of_few(rounds[-1].images, extractor.dim),
    ]
    notes += [] if judge is None else judge.notes()
    return _result(pipeline, choice, held_out, rounds, outcomes, notes)


def _result(
    pipeline: CascadePipeline,
    choice: SweepOptions,
    held_out: RealPictures,
    rounds: Sequence[Round],
    outcomes: Sequence[Outcome],
    notes: Sequence[str],
) -> Sweep:
    current = {name: stage.sampling for name, stage in pipeline.stages.items()}
    ordered = in_order(outcomes, choice.by, current)
    return Sweep(
        pipeline=choice.name,
        data=held_out.path,
        reading=held_out.reading.to_dict(),
        seed=choice.seed,
        by=choice.by,
        prefer=choice.prefer,
        tolerance=choice.tolerance,
        rounds=rounds,
        outcomes=ordered,
        current=_place_of(current, ordered),
        best=choose(ordered, choice.by, choice.prefer, choice.tolerance),
        notes=notes,
        about={"command": command_line(), "hardware": hardware(), "versions": versions()},
    )


def _held_out(
    pipeline: CascadePipeline, data: str | Path | ImageSource, choice: SweepOptions
) -> RealPictures:
    """Open the held-out pictures, without classes that a class-conditional pipeline lacks."""
    is_paired = isinstance(task_of(pipeline.stages.contracts), PairedTask)
    vocabulary = None if is_paired or text_of(pipeline) is not None else pipeline.labels
    space = pipeline.stages.last.space
    held_out = RealPictures(
        data,
        name=REAL,
        vocabulary=vocabulary,
        cache_dir=choice.cache_dir,
        space=space,
        pairs=choice.pairs,
        taker=pipeline.stages.last.contract.paired_condition,
        reading=FileReading(choice.range, choice.nodata, choice.axis),
    )
    check_pairs(held_out, pipeline)
    return held_out


def _candidates(
    pipeline: CascadePipeline, axes: Sequence[str], prefer: Preference
) -> list[Candidate]:
    if axes:
        return combine(read_axes(axes, pipeline), pipeline)
    together = TOGETHER_FOR_SPEED if prefer == "speed" else ()
    return one_at_a_time(default_axes(pipeline, prefer), pipeline, together=together)


def _runner(
    pipeline: CascadePipeline,
    held_out: RealPictures,
    extractor: FeatureExtractor,
    seed: int,
    judge: AlignmentJudge | None,
) -> Runner:
    task = task_of(pipeline.stages.contracts)
    if isinstance(task, PairedTask):
        distances = distances_on(pipeline.device)
        return PairedRunner(pipeline, task, held_out, extractor, distances, seed)
    return SetRunner(pipeline, held_out, extractor, seed, judge)


def _basis(
    pipeline: CascadePipeline,
    held_out: RealPictures,
    extractor: FeatureExtractor,
    choice: SweepOptions,
    judge: AlignmentJudge | None,
) -> list[str]:
    """Texts with everything that images and figures depend on besides the settings."""
    stages = {name: stage.config() | {"sampling": {}} for name, stage in pipeline.stages.items()}
    labels = [held_out.labels(place) for place in range(len(held_out))]
    text = text_of(pipeline)
    captions = [] if text is None else read_captions(held_out, text).phrasings
    return [
        weights_digest(pipeline.stages),
        json.dumps([stages, labels, captions]),
        extractor.fingerprint(),
        "" if judge is None else judge.fingerprint(),
        pipeline.device.type,
        str(choice.seed),
        json.dumps(held_out.reading.to_dict()),
        *held_out.digests,
        *held_out.partner_digests,
    ]


def _place_of(settings: Mapping[str, SamplingSettings], outcomes: Sequence[Outcome]) -> int:
    """Find the place of the current settings among the outcomes.

    Raises:
        ContractError: if their images were not finite.
    """
    for place, each in enumerate(outcomes):
        if each.candidate.settings == settings:
            return place
    raise ContractError(
        "with the current settings, the pipeline's images have values that are not finite; "
        "change the settings, or train the pipeline again."
    )
