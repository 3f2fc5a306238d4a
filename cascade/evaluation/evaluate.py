"""Measures how good a pipeline is, and which of its stages holds it back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cascade.data.file_reading import FileReading
from cascade.data.source import ImageSource
from cascade.errors import ContractError
from cascade.evaluation.alignment.captions import text_of
from cascade.evaluation.alignment.finding import find_judge
from cascade.evaluation.alignment.judge import AlignmentJudge
from cascade.evaluation.alignment.model import AlignmentModel
from cascade.evaluation.doubt import check_doubt, with_doubt
from cascade.evaluation.extractors import find_extractor
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.likelihood_figures import Likelihood, check_stages, with_likelihood
from cascade.evaluation.measuring_pairs import PairMeasurer
from cascade.evaluation.measuring_sets import SetMeasurer
from cascade.evaluation.peer_upscalers import PeerUpscaler, load_peers
from cascade.evaluation.perceptual_distances import distances_on
from cascade.evaluation.progress import NamedProgress, no_progress
from cascade.evaluation.real_pictures import REAL, RealPictures
from cascade.evaluation.results import Evaluation, Measurements
from cascade.evaluation.set_distances import warn_of_few
from cascade.imaging.rasters.showing import seen_bands
from cascade.pipeline import CascadePipeline
from cascade.space import Space
from cascade.tasks.table import task_of
from cascade.tasks.task import PairedTask
from cascade.training.provenance import command_line, hardware, versions

MOST_IMAGES = 1000
ALONE = (
    "a stage alone gets inputs made from the held-out images themselves, so it scores better "
    "than on other images; the difference between it and the chain is the cost of the stages "
    "before it."
)


def evaluate(
    pipeline: CascadePipeline,
    data: str | Path | ImageSource,
    *,
    name: str = "pipeline",
    train: str | Path | ImageSource | None = None,
    pairs: str | None = None,
    range: tuple[int, int] | None = None,
    nodata: float | None = None,
    axis: int | None = None,
    num_images: int | None = None,
    seed: int = 0,
    extractor: str | FeatureExtractor = "lite0",
    extractor_path: Path | None = None,
    lpips: bool = False,
    lpips_path: Path | None = None,
    alignment: str | Path | AlignmentModel | None = None,
    likelihood: Likelihood | None = None,
    doubt_seeds: int | None = None,
    beside: Sequence[str | Path] = (),
    cache_dir: Path | None = None,
    progress: NamedProgress | None = None,
) -> Evaluation:
    """Measure a pipeline on held-out pictures, as a whole and stage by stage.

    If it starts from noise, it makes images of the same captions or classes as the held-out
    pictures, and both sets are compared. If it takes pictures, it gets inputs made from the
    held-out ones, such as smaller or greyscale copies, and its results are compared with the
    originals.

    Args:
        pipeline: the pipeline, on its device.
        data: a folder, shards or a source of held-out pictures, not smaller than the last stage's.
        name: name of the pipeline in the report.
        train: the pictures that the pipeline was trained on, to look for copies; only for a
            pipeline that starts from noise.
        pairs: the inputs of the held-out pictures, for a pipeline of one stage: a folder or shards
            with files of the same names, or `beside` for `NAME.low.*` beside `NAME.high.*`.
            Default: inputs are made from the pictures, which a stage that was trained on pairs
            refuses.
        range: the numbers in the files that become black and white, from 0 to 255 or 65535; give
            that of training (`data.range`). None for all that a picture's bits allow.
        nodata: for bands, a number that stands for a missing one besides what files say; pictures
            with missing numbers are refused.
        axis: for bands, axis of a volume along which it is cut into slices; None for the last one.
            An open source must have been opened with it.
        num_images: number of images to make; default: one per held-out picture, at most 1000.
        seed: seed of the first image; each further image has the next seed.
        extractor: `lite0`, `lite2`, `inception`, `clip`, `dinov2`, or one of your own.
        extractor_path: weights of `inception` (a file), `clip` or `dinov2` (a folder), instead of
            a download; `lite0` and `lite2` have theirs in their package and take no path.
        lpips: whether to measure LPIPS too, which downloads AlexNet's weights once.
        lpips_path: file with AlexNet's weights, to measure LPIPS without a download.
        alignment: a folder with an alignment tower or a CLIP, `clip` for a download, or a model of
            your own, to measure how well images agree with their prompts; only for a pipeline that
            makes images from prompts.
        likelihood: `bound` or `ode` to measure the bits per dimension of each stage alone, on at
            most 100 held-out pictures: the variational bound, or the density of the flow.
        doubt_seeds: number of seeds, at least 2, to measure how well their standard deviation
            predicts errors, on at most 100 held-out pictures; only for a pipeline that takes
            pictures. It takes as many times as long as one seed.
        beside: weights of other upscalers to measure beside the pipeline, on the same inputs:
            safetensors, or files that torch reads with `weights_only`. Only for a pipeline that
            upscales, by the same factor.
        cache_dir: folder for features of real pictures; default: the user's cache folder.
        progress: called as `progress(what, done, total)` while the measurement runs.

    Raises:
        DataError: if there are too few pictures, or one is damaged or too small.
        ContractError: if an argument does not fit the pipeline.
        WeightsError: if weights cannot be loaded, or give values that are not finite.
        CascadeError: if the package of the extractor is not installed.
    """
    forget_peak_memory(pipeline.device)
    _check_pipeline(pipeline, likelihood, doubt_seeds)
    peers = load_peers(beside, pipeline.stages.contracts, pipeline.device)
    reading = FileReading(range, nodata, axis)
    held_out = _held_out_pictures(data, pipeline, cache_dir, pairs, reading)
    space = pipeline.stages.last.space
    training = _training_pictures(train, cache_dir, space, reading)
    judge = find_judge(pipeline, held_out, alignment)
    options = {
        "pipeline": _quiet(pipeline),
        "held_out": held_out,
        "extractor": _loaded(extractor, extractor_path),
        "num_images": _count(num_images, held_out),
        "seed": seed,
        "progress": progress or no_progress,
    }
    measurements = _measure(options, training, judge, peers, lpips=lpips, lpips_path=lpips_path)
    measurements = _with_further_figures(measurements, pipeline, options, likelihood, doubt_seeds)
    notes = _notes(
        measurements, options["extractor"], held_out, options["num_images"], training, space
    )
    return _evaluation(name, pipeline, measurements, notes, held_out, training, seed)


def _check_pipeline(
    pipeline: CascadePipeline, likelihood: Likelihood | None, doubt_seeds: int | None
) -> None:
    """Check that everything that was asked for can be measured on a pipeline.

    Raises:
        ContractError: if it cannot.
    """
    task_of(pipeline.stages.contracts)
    check_measurable(pipeline)
    if likelihood is not None:
        check_stages(pipeline, likelihood)
    if doubt_seeds is not None:
        check_doubt(pipeline, doubt_seeds)


def _held_out_pictures(
    data: str | Path | ImageSource,
    pipeline: CascadePipeline,
    cache_dir: Path | None,
    pairs: str | None,
    reading: FileReading,
) -> RealPictures:
    """Open the held-out pictures, and check that their inputs fit the pipeline."""
    task, last = task_of(pipeline.stages.contracts), pipeline.stages.last
    is_drawn_from_labels = not isinstance(task, PairedTask) and text_of(pipeline) is None
    held_out = RealPictures(
        data,
        name=REAL,
        vocabulary=pipeline.labels if is_drawn_from_labels else None,
        cache_dir=cache_dir,
        space=last.space,
        pairs=pairs,
        taker=last.contract.paired_condition,
        reading=reading,
    )
    check_pairs(held_out, pipeline)
    return held_out


def _with_further_figures(
    measurements: Measurements,
    pipeline: CascadePipeline,
    options: dict[str, Any],
    likelihood: Likelihood | None,
    doubt_seeds: int | None,
) -> Measurements:
    """Add bits per dimension, and what the standard deviation over seeds says, if asked for."""
    held_out, count, progress = (options[each] for each in ("held_out", "num_images", "progress"))
    if likelihood is not None:
        measurements = with_likelihood(
            measurements, pipeline, held_out, likelihood, count, progress
        )
    if doubt_seeds is not None:
        seed = options["seed"]
        measurements = with_doubt(
            measurements, pipeline, held_out, doubt_seeds, count, seed=seed, progress=progress
        )
    return measurements


def _evaluation(
    name: str,
    pipeline: CascadePipeline,
    measurements: Measurements,
    notes: list[str],
    held_out: RealPictures,
    training: RealPictures | None,
    seed: int,
) -> Evaluation:
    """What was measured, with what a report says about it."""
    return Evaluation(
        pipeline=name,
        task=task_of(pipeline.stages.contracts).name,
        data=held_out.path,
        train="" if training is None else training.path,
        reading=held_out.reading.to_dict(),
        seed=seed,
        settings=measurements.settings,
        measured=measurements.measured,
        notes=notes,
        peak_memory_mib=peak_memory_mib(pipeline.device),
        about={"command": command_line(), "hardware": hardware(), "versions": versions()},
        calibration=measurements.calibration,
        sheets=measurements.sheets,
        expected_error=measurements.expected_error,
    )


def check_pairs(held_out: RealPictures, pipeline: CascadePipeline) -> None:
    """Check that pairs are there if a stage needs them, and that they fit the pipeline.

    Raises:
        ContractError: saying what to give instead.
    """
    contracts = pipeline.stages.contracts
    if not held_out.are_pairs:
        if any(each.needs_partner for each in contracts):
            raise ContractError(
                "this pipeline was trained on pairs, so its inputs cannot be made from images; "
                "give pairs: the folder or the shards of the inputs."
            )
        return
    if len(contracts) > 1:
        raise ContractError(
            f"pairs measure one stage, but this pipeline has {len(contracts)}; measure the stage "
            "that takes the inputs alone, by its own folder."
        )


def _training_pictures(
    train: str | Path | ImageSource | None,
    cache_dir: Path | None,
    space: Space,
    reading: FileReading,
) -> RealPictures | None:
    if train is None:
        return None
    name = "training images"
    return RealPictures(train, name=name, cache_dir=cache_dir, space=space, reading=reading)


def _loaded(extractor: str | FeatureExtractor, path: Path | None) -> FeatureExtractor:
    if isinstance(extractor, str):
        return find_extractor(extractor, path)
    if path is not None:
        raise ContractError("extractor_path is for extractors by name; leave it out.")
    return extractor


def _count(num_images: int | None, held_out: RealPictures) -> int:
    if num_images is None:
        return min(len(held_out), MOST_IMAGES)
    if num_images < 1:
        raise ContractError(f"num_images must be at least 1, got {num_images}.")
    return num_images


def _measure(
    options: dict[str, Any],
    training: RealPictures | None,
    judge: AlignmentJudge | None,
    peers: Sequence[PeerUpscaler],
    *,
    lpips: bool,
    lpips_path: Path | None,
) -> Measurements:
    """Measure by the measurer of the task: pairs where results have originals, else sets."""
    if isinstance(task_of(options["pipeline"].stages.contracts), PairedTask):
        _check_without_training(training)
        device = options["pipeline"].device
        distances = distances_on(device, lpips=lpips, lpips_path=lpips_path)
        return PairMeasurer(**options, distances=distances, peers=peers).measure()
    _check_without_lpips(lpips or lpips_path is not None)
    return SetMeasurer(**options, training=training, judge=judge).measure()


def check_measurable(pipeline: CascadePipeline) -> None:
    """Check that metrics can read the images of every stage.

    Raises:
        ContractError: if a stage makes anything but pixels, or latents or embeddings for the next
            stage.
    """
    for name, stage in pipeline.stages.items():
        if stage.space.kind != "pixels" and name != pipeline.stages.names[-1]:
            continue
        if stage.space.kind != "pixels":
            raise ContractError(
                f"evaluation measures pixels, but stage {name!r} gives {stage.space.kind} with "
                f"{stage.space.channels} channels; measure its images yourself."
            )


def _quiet(pipeline: CascadePipeline) -> CascadePipeline:
    """Make the same pipeline without a progress bar of its own."""
    quiet = CascadePipeline.from_stages(dict(pipeline.stages.items()))
    quiet.set_progress_bar_config(disable=True)
    return quiet


def _check_without_lpips(lpips: bool) -> None:
    if lpips:
        raise ContractError(
            "LPIPS compares results with originals, which a pipeline that starts from noise does "
            "not have; leave lpips and lpips_path out."
        )


def _check_without_training(training: RealPictures | None) -> None:
    if training is not None:
        raise ContractError(
            "copies of training images are searched for among images generated from noise, but "
            "this pipeline takes images; leave train out."
        )


def _notes(
    measurements: Measurements,
    extractor: FeatureExtractor,
    held_out: RealPictures,
    count: int,
    training: RealPictures | None,
    space: Space,
) -> list[str]:
    """Write what a reader of the figures should know."""
    notes = [*measurements.notes, *held_out.notes(count)]
    score = measurements.measured[-1].score("FD")
    if score is not None:
        notes += warn_of_few(min(score.n, score.n_reference), extractor.dim)
    same = 0 if training is None else len(set(held_out.digests) & set(training.digests))
    if same:
        notes.append(
            f"{same} of {len(held_out)} held-out images are training images too; figures "
            "measured on them say little about other images."
        )
    if seen := seen_bands(space):
        notes.append(f"{extractor.name} and the figures of colour saw {seen}.")
    if any(each.subject.endswith(", alone") for each in measurements.measured):
        notes.append(ALONE)
    return notes


def forget_peak_memory(device: torch.device) -> None:
    """Let the peak memory of an accelerator begin anew; that of a process cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mib(device: torch.device) -> float | None:
    """Read the peak memory of the accelerator, or else of the process; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib
