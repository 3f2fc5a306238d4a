"""How good a pipeline is, and which of its stages holds it back."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from cascade.data.source import ImageSource
from cascade.errors import ContractError
from cascade.evaluation.bootstrap import warn_of_few
from cascade.evaluation.features import FeatureExtractor, find_extractor
from cascade.evaluation.findings import REAL, Findings
from cascade.evaluation.generated import evaluate_generated
from cascade.evaluation.metrics import perceptual_distance
from cascade.evaluation.pictures import Pictures, Report
from cascade.evaluation.restored import Distance, evaluate_restored
from cascade.evaluation.scores import Evaluation, Task
from cascade.evaluation.sheets import make_sheets
from cascade.networks.efficientnet import load_efficientnet
from cascade.pipeline import CascadePipeline
from cascade.training.provenance import command_line, hardware, versions

MOST_IMAGES = 1000
ALONE = (
    "a stage alone is given the held-out pictures themselves, made small, so that it scores better "
    "than on other pictures; what lies between it and the chain is what the stages before it cost."
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
    report: Report | None = None,
) -> Evaluation:
    """Measure a pipeline on held-out pictures, whole and stage by stage.

    A pipeline that begins with a base stage makes as many pictures as are asked for, of the classes
    of the held-out ones, and both sets are compared. One that takes pictures gets the held-out ones
    made small, or grey, and its results are compared with the originals.

    Args:
        pipeline: on its device.
        data: a folder, shards or a source of held-out pictures, at least as large as the last
            stage's.
        name: of the pipeline, for the report.
        train: the pictures that it was trained on, in which copies are looked for; for pipelines
            that begin with a base stage.
        num_images: how many to make or to restore; default: as many as are held out, at most 1000.
        seed: of the first image; the others count up.
        extractor: `lite0`, `lite2`, `inception`, `clip`, `dinov2`, or one of your own.
        extractor_path: of its weights.
        lpips: whether to measure LPIPS too, for which AlexNet's weights are downloaded once.
        lpips_path: of AlexNet's weights, with which LPIPS is measured without a download.
        cache_dir: where features of real pictures are kept; default: the user's cache folder.
        report: called with what is being done, how much of it is done, and of how much.

    Raises:
        DataError: if there are too few pictures, or one is damaged or too small.
        ContractError: if something that was given does not fit the pipeline.
        WeightsError: if weights of an extractor cannot be had.
    """
    told = report or (lambda what, done, total: None)
    task = task_of(pipeline)
    vocabulary = pipeline.labels if task == "generate" else None
    held_out = Pictures(data, name=REAL, vocabulary=vocabulary, cache_dir=cache_dir)
    training = None
    if train is not None:
        training = Pictures(train, name="training pictures", cache_dir=cache_dir)
    if isinstance(extractor, str):
        extractor = find_extractor(extractor, extractor_path)
    elif extractor_path is not None:
        raise ContractError("extractor_path is for extractors by name; leave it out.")
    count = min(len(held_out), MOST_IMAGES) if num_images is None else num_images
    if count < 1:
        raise ContractError(f"num_images must be at least 1, got {count}.")
    quiet = CascadePipeline.from_stages(dict(pipeline.stages.items()))
    quiet.set_progress_bar_config(disable=True)
    options = {"num_images": count, "seed": seed, "report": told}
    if task == "generate":
        _check_without_pairs(lpips or lpips_path is not None)
        found = evaluate_generated(quiet, held_out, training, extractor, **options)
    else:
        _check_without_training(training)
        distances = distances_on(pipeline.device, lpips=lpips, lpips_path=lpips_path)
        found = evaluate_restored(quiet, held_out, extractor, distances, **options)
    last = pipeline.stages[pipeline.stages.names[-1]].contract
    return Evaluation(
        pipeline=name,
        task=task,
        data=held_out.path,
        train="" if training is None else training.path,
        seed=seed,
        settings=found.settings,
        measured=found.measured,
        notes=_notes(found, extractor.dim, held_out, training),
        peak_memory_mib=peak_memory_mib(pipeline.device),
        about={"command": command_line(), "hardware": hardware(), "versions": versions()},
        sheets=make_sheets(task, found, training, last),
    )


def task_of(pipeline: CascadePipeline) -> Task:
    """What a pipeline does, by what its first stage takes."""
    first = pipeline.stages[pipeline.stages.names[0]].contract
    tasks: dict[str, Task] = {"noise": "generate", "low_res": "upscale", "grey": "colourise"}
    return tasks[str(first.takes)]


def _check_without_pairs(lpips: bool) -> None:
    if lpips:
        raise ContractError(
            "LPIPS compares results with originals, which a pipeline that begins with a base stage "
            "does not have; leave --lpips and --lpips-path out."
        )


def _check_without_training(training: Pictures | None) -> None:
    if training is not None:
        raise ContractError(
            "copies of training pictures are looked for in what a base stage makes; this pipeline "
            "takes pictures, leave --train out."
        )


def distances_on(
    device: torch.device, *, lpips: bool = False, lpips_path: Path | None = None
) -> dict[str, Distance]:
    """Distances of results from originals, by name: PD-EffLite0, and LPIPS if it is wanted.

    Raises:
        CascadeError: if a package is missing.
        WeightsError: if weights cannot be had.
    """
    lite = load_efficientnet("lite0").to(device)
    distances = {f"PD-{lite.name}": _on(device, lambda a, b: perceptual_distance(lite, a, b))}
    if lpips or lpips_path is not None:
        from cascade.evaluation.published_extractors import LearnedDistance

        learned = LearnedDistance(lpips_path)
        learned.network.to(device)
        distances["LPIPS-AlexNet"] = _on(device, learned)
    return distances


def _on(device: torch.device, distance: Distance) -> Distance:
    return lambda images, truth: distance(images.to(device), truth.to(device)).cpu()


def _notes(found: Findings, dim: int, held_out: Pictures, training: Pictures | None) -> list[str]:
    """What one must know to read the figures."""
    notes = [*found.notes, *held_out.notes()]
    score = found.measured[-1].score("FD")
    if score is not None:
        notes += warn_of_few(min(score.n, score.n_reference), dim)
    same = 0 if training is None else len(set(held_out.digests) & set(training.digests))
    if same:
        notes.append(
            f"{same} of {len(held_out)} held-out pictures are training pictures too; what is "
            "measured on them says little of other pictures."
        )
    if any(each.subject.endswith(", alone") for each in found.measured):
        notes.append(ALONE)
    return notes


def peak_memory_mib(device: torch.device) -> float | None:
    """Most memory so far, of the accelerator or of the process; None where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib
