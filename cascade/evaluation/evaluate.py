"""Measures how good a pipeline is, and which of its stages holds it back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from cascade.data.source import ImageSource
from cascade.errors import ContractError
from cascade.evaluation.extractors import find_extractor
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.figures import Measured
from cascade.evaluation.measuring_pairs import PairMeasurer
from cascade.evaluation.measuring_sets import SetMeasurer
from cascade.evaluation.perceptual_distances import distances_on
from cascade.evaluation.progress import NamedProgress, no_progress
from cascade.evaluation.real_pictures import REAL, RealPictures
from cascade.evaluation.results import Evaluation
from cascade.evaluation.set_distances import warn_of_few
from cascade.pipeline import CascadePipeline
from cascade.tasks.table import task_of
from cascade.tasks.task import PairedTask
from cascade.training.provenance import command_line, hardware, versions

MOST_IMAGES = 1000
CHANNELS = 3  # of what extractors and metrics see
ALONE = (
    "a stage alone gets inputs made from the held-out pictures themselves, so it scores better "
    "than on other pictures; the difference between it and the chain is what the stages before it "
    "cost."
)


def evaluate(
    pipeline: CascadePipeline,
    data: str | Path | ImageSource,
    *,
    name: str = "pipeline",
    train: str | Path | ImageSource | None = None,
    num_images: int | None = None,
    seed: int = 0,
    extractor: str | FeatureExtractor = "lite0",
    extractor_path: Path | None = None,
    lpips: bool = False,
    lpips_path: Path | None = None,
    cache_dir: Path | None = None,
    progress: NamedProgress | None = None,
) -> Evaluation:
    """Measure a pipeline on held-out pictures, whole and stage by stage.

    A pipeline that starts from noise makes `num_images` pictures of the classes of the held-out
    ones, and both sets are compared. One that takes pictures gets smaller or grey copies of the
    held-out ones, as its first stage takes them, and its results are compared with the originals.

    Args:
        pipeline: on its device.
        data: a folder, shards or a source of held-out pictures, at least as large as the last
            stage's.
        name: of the pipeline, for the report.
        train: the pictures that it was trained on, to look for copies of them; for pipelines that
            start from noise.
        num_images: how many to make; default: as many as are held out, at most 1000.
        seed: of the first image; the others count up.
        extractor: `lite0`, `lite2`, `inception`, `clip`, `dinov2`, or one of your own.
        extractor_path: of its weights.
        lpips: whether to measure LPIPS too, for which AlexNet's weights are downloaded once.
        lpips_path: of AlexNet's weights, with which LPIPS is measured without a download.
        cache_dir: where features of real pictures are kept; default: the user's cache folder.
        progress: called with what is being done, how much of it is done, and of how much.

    Raises:
        DataError: if there are too few pictures, or one is damaged or too small.
        ContractError: if an argument does not fit the pipeline.
        WeightsError: if weights of an extractor cannot be loaded.
    """
    task = task_of(pipeline.stages.contracts)
    check_measurable(pipeline)
    vocabulary = None if isinstance(task, PairedTask) else pipeline.labels
    held_out = RealPictures(data, name=REAL, vocabulary=vocabulary, cache_dir=cache_dir)
    training = None
    if train is not None:
        training = RealPictures(train, name="training pictures", cache_dir=cache_dir)
    if isinstance(extractor, str):
        extractor = find_extractor(extractor, extractor_path)
    elif extractor_path is not None:
        raise ContractError("extractor_path is for extractors by name; leave it out.")
    count = min(len(held_out), MOST_IMAGES) if num_images is None else num_images
    if count < 1:
        raise ContractError(f"num_images must be at least 1, got {count}.")
    options = {
        "pipeline": _quiet(pipeline),
        "held_out": held_out,
        "extractor": extractor,
        "num_images": count,
        "seed": seed,
        "progress": progress or no_progress,
    }
    if isinstance(task, PairedTask):
        _check_without_training(training)
        distances = distances_on(pipeline.device, lpips=lpips, lpips_path=lpips_path)
        measurer = PairMeasurer(**options, distances=distances)
    else:
        _check_without_lpips(lpips or lpips_path is not None)
        measurer = SetMeasurer(**options, training=training)
    measurements = measurer.measure()
    return Evaluation(
        pipeline=name,
        task=task.name,
        data=held_out.path,
        train="" if training is None else training.path,
        seed=seed,
        settings=measurements.settings,
        measured=measurements.measured,
        notes=[
            *measurements.notes,
            *held_out.notes(),
            *_notes(measurements.measured, extractor.dim, held_out, training),
        ],
        peak_memory_mib=peak_memory_mib(pipeline.device),
        about={"command": command_line(), "hardware": hardware(), "versions": versions()},
        sheets=measurements.sheets,
    )


def check_measurable(pipeline: CascadePipeline) -> None:
    """Check that metrics can see what every stage gives.

    Raises:
        ContractError: if a stage gives something else than RGB images.
    """
    for name, stage in pipeline.stages.items():
        if stage.space.channels != CHANNELS or stage.space.kind != "pixels":
            raise ContractError(
                f"evaluation measures RGB images, but stage {name!r} gives {stage.space.channels} "
                f"channels of {stage.space.kind}; measure such a stage by a meter of your own."
            )


def _quiet(pipeline: CascadePipeline) -> CascadePipeline:
    """The same pipeline without a progress bar of its own."""
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
            "copies of training pictures are looked for in pictures made from noise; this pipeline "
            "takes pictures, leave train out."
        )


def _notes(
    measured: Sequence[Measured], dim: int, held_out: RealPictures, training: RealPictures | None
) -> list[str]:
    """What one must know to read the figures."""
    notes = []
    score = measured[-1].score("FD")
    if score is not None:
        notes += warn_of_few(min(score.n, score.n_reference), dim)
    same = 0 if training is None else len(set(held_out.digests) & set(training.digests))
    if same:
        notes.append(
            f"{same} of {len(held_out)} held-out pictures are training pictures too; figures "
            "measured on them say little about other pictures."
        )
    if any(each.subject.endswith(", alone") for each in measured):
        notes.append(ALONE)
    return notes


def peak_memory_mib(device: torch.device) -> float | None:
    """Most memory so far, of the accelerator or of the process; None if it is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib
