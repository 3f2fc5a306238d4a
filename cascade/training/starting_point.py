"""Starting a run from the weights of a stage that was trained before."""

from __future__ import annotations

import torch
from torch import Tensor

from cascade.diffusion_stage import DiffusionStage
from cascade.errors import WeightsError
from cascade.stage import Stage


def start_from(stage: Stage, trained: Stage) -> None:
    """Give a new stage the weights of a trained one.

    The networks must be the same; sizes in pixels, conditions' probabilities and the names of the
    classes may differ. A class of the same field and name keeps its embedding, others start new.

    Args:
        stage: whose weights are replaced.
        trained: where they come from.

    Raises:
        WeightsError: naming what does not fit.
    """
    if not isinstance(stage, DiffusionStage) or not isinstance(trained, DiffusionStage):
        raise WeightsError(f"init_from: that is a {trained.kind} stage, this one {stage.kind}.")
    if stage.process.prediction != trained.process.prediction:
        raise WeightsError(
            f"init_from: that stage predicts {trained.process.prediction}, this one "
            f"{stage.process.prediction}; set diffusion.prediction to match."
        )
    if (stage.process.residual is None) != (trained.process.residual is None):
        raise WeightsError(
            "init_from: one of the stages predicts what its image leaves open, the other whole "
            "images; set diffusion.residual_std in both or in neither."
        )
    given = trained.state_dict()
    wanted = stage.state_dict()
    tables = _tables(stage, trained, wanted)
    for name, tensor in wanted.items():
        if name in tables:
            continue
        if name not in given:
            raise WeightsError(
                f"init_from: that stage has no weights {name!r}; is it of another network?"
            )
        if given[name].shape != tensor.shape:
            raise WeightsError(
                f"init_from: {name!r} has shape {tuple(given[name].shape)} there and "
                f"{tuple(tensor.shape)} here; the networks must be the same."
            )
        wanted[name] = given[name]
    stage.load_state_dict(wanted | tables)


def _tables(stage: Stage, trained: Stage, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The embeddings of classes, with the rows of the classes that both stages know."""
    known = {field: names for each in trained.conditions for field, names in each.classes.items()}
    theirs, ours = _table_names(trained), _table_names(stage)
    given = trained.state_dict()
    tables = {}
    for condition in stage.conditions:
        for field, names in condition.classes.items():
            table = weights[ours[field]].clone()
            if field in known:
                source = given[theirs[field]]
                _check_width(source, table)
                with torch.no_grad():
                    table[-1] = source[-1]  # "any"
                    for row, name in enumerate(names):
                        if name in known[field]:
                            table[row] = source[known[field].index(name)]
            tables[ours[field]] = table
    return tables


def _table_names(stage: Stage) -> dict[str, str]:
    """The weights that hold the embedding of each label field, by field."""
    return {
        field: f"network.embedding.parts.{condition.name}.{place}.weight"
        for condition in stage.conditions
        for place, field in enumerate(condition.classes)
    }


def _check_width(source: Tensor, table: Tensor) -> None:
    if source.shape[1] != table.shape[1]:
        raise WeightsError(
            f"init_from: labels are embedded in {source.shape[1]} numbers there and "
            f"{table.shape[1]} here; the networks must be the same."
        )
