"""Writes the figures of an evaluation into a model card, where the Hub reads and shows them.

They become the `model-index` of the card's front matter, by `huggingface_hub.EvalResult`. The text
of the card does not change.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from yaml import YAMLError

from cascade.errors import OutputError
from cascade.evaluation.figures import Score
from cascade.evaluation.results import Evaluation
from cascade.saving.atomic import atomic_file
from cascade.tasks.table import task_named


def write_results(evaluation: Evaluation, folder: Path) -> None:
    """Write the figures of the whole pipeline into its card, and remove earlier ones.

    Results on other data stay, since somebody else may have written them.

    Args:
        evaluation: the figures.
        folder: the folder of the pipeline, whose `README.md` is changed or created.

    Raises:
        OutputError: if the card cannot be read or written.
    """
    file = folder / "README.md"
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        card = ModelCard(text or "---\nlibrary_name: diffusers\n---\n", ignore_metadata_errors=True)
    except (OSError, ValueError, YAMLError) as error:
        raise OutputError(f"{file}: not a model card that can be changed ({error}).") from error
    metadata = {k: v for k, v in card.data.to_dict().items() if k != "model-index"}
    name = metadata.pop("model_name", None) or Path(evaluation.pipeline).name
    new = eval_results(evaluation)
    data_sets = {each.dataset_name for each in new}
    earlier = getattr(card.data, "eval_results", None) or []
    others = [each for each in earlier if each.dataset_name not in data_sets]
    card.data = ModelCardData(
        **metadata, model_name=name, eval_results=others + new, ignore_metadata_errors=True
    )
    with atomic_file(file) as temporary:
        temporary.write_text(str(card), encoding="utf-8")


def eval_results(evaluation: Evaluation) -> list[EvalResult]:
    """Convert the figures of the whole pipeline to the Hub's own class."""
    task = task_named(evaluation.task)
    data = _last_parts(evaluation.data) or "held-out images"
    return [
        EvalResult(
            task_type=task.hub_type,
            task_name=task.hub_title,
            dataset_type=_slug(data),  # the Hub tells data sets apart by it
            dataset_name=data,
            metric_type=_slug(score.name),
            metric_name=score.name,
            metric_value=float(f"{score.value:.4g}"),
            metric_args=_basis(score),
        )
        for score in evaluation.whole.scores
    ]


def _last_parts(data: str) -> str:
    """Keep a name and its folder; the rest of a path is private to this machine."""
    path = Path(data)
    return "/".join(path.relative_to(path.anchor).parts[-2:])


def _basis(score: Score) -> dict[str, Any]:
    basis: dict[str, Any] = {"n": score.n}
    if score.reference:
        basis |= {"reference": score.reference, "n_reference": score.n_reference}
    if score.extractor:
        basis |= {"extractor": score.extractor, "resizing": score.resizing}
    if score.low is not None and score.high is not None:
        basis["interval_95"] = [float(f"{each:.4g}") for each in (score.low, score.high)]
    return basis


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
