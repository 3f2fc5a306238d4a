"""Finds models of alignment by name or folder, and the judge that a pipeline's captions need."""

from __future__ import annotations

from pathlib import Path

from cascade.conditioning.image_embedding import ImageEmbedding
from cascade.errors import ContractError, WeightsError
from cascade.evaluation.alignment.captions import read_captions, text_of
from cascade.evaluation.alignment.clip import ClipAlignment
from cascade.evaluation.alignment.judge import AlignmentJudge
from cascade.evaluation.alignment.model import AlignmentModel
from cascade.evaluation.alignment.tower import AlignmentTower
from cascade.evaluation.real_pictures import RealPictures
from cascade.pipeline import CascadePipeline
from cascade.tasks.table import task_of
from cascade.tasks.task import PairedTask
from cascade.vision.tower import CONFIG, load_tower


def find_alignment(source: str | Path) -> AlignmentModel:
    """Load a model of alignment.

    Args:
        source: `clip` for a download, or a folder with a tower or a CLIP.

    Raises:
        CascadeError: if a package is not installed.
        WeightsError: if there is none, or its weights cannot be loaded.
    """
    if str(source) == "clip":
        return ClipAlignment()
    folder = Path(source)
    if (folder / CONFIG).is_file():
        return AlignmentTower(load_tower(folder))
    if (folder / "config.json").is_file():
        return ClipAlignment(folder)
    raise WeightsError(
        f"no model of alignment in {folder}; name a folder with {CONFIG} or a CLIP's config.json, "
        "or clip for a download."
    )


def _check_does_not_steer(model: AlignmentModel, pipeline: CascadePipeline) -> None:
    """Check that a model is not the encoder whose embeddings a pipeline aims at.

    Raises:
        ContractError: if it is.
    """
    if not isinstance(model, AlignmentTower):
        return
    conditions = (each for contract in pipeline.stages.contracts for each in contract.conditions)
    hashes = [each.sha256 for each in conditions if isinstance(each, ImageEmbedding)]
    if model.tower.facts.sha256 in hashes:
        raise ContractError(
            f"{model.name} conditions this pipeline, so it cannot evaluate its images; use a "
            "model that was trained separately."
        )


def find_judge(
    pipeline: CascadePipeline, held_out: RealPictures, alignment: str | Path | AlignmentModel | None
) -> AlignmentJudge | None:
    """Make the judge of a pipeline's images; None without a model.

    Args:
        pipeline: the pipeline, whose text condition decides which annotations are captions.
        held_out: the pictures from whose captions it makes images.
        alignment: a model, or what `find_alignment` takes.

    Raises:
        ContractError: if the pipeline takes no text, takes pictures, or is steered by the model.
        DataError: if the held-out pictures have too few captions.
        CascadeError: if the model cannot be loaded.
    """
    if alignment is None:
        return None
    if isinstance(task_of(pipeline.stages.contracts), PairedTask):
        raise ContractError(
            "alignment is measured on images that start from noise, but this pipeline takes "
            "images; leave alignment out."
        )
    text = text_of(pipeline)
    if text is None:
        raise ContractError(
            "alignment compares images with their prompts, but no stage of this pipeline takes "
            "text; leave alignment out."
        )
    model = alignment if isinstance(alignment, AlignmentModel) else find_alignment(alignment)
    _check_does_not_steer(model, pipeline)
    judge = AlignmentJudge(model, read_captions(held_out, text))
    model.network.to(pipeline.device)
    return judge
