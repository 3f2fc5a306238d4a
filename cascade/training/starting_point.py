"""Starting a run from the weights of a stage that was trained before."""

from __future__ import annotations

import torch
from torch import Tensor

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
    tables = _label_tables(stage, trained, wanted)
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


def _label_tables(stage: Stage, trained: Stage, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The embeddings of the labels, with the rows of the classes that both stages know."""
    if stage.labels is None:
        return {}
    known = {} if trained.labels is None else trained.labels.fields
    given = trained.state_dict()
    tables = {}
    for place, (field, names) in enumerate(stage.labels.fields.items()):
        key = f"network.embedding.tables.{place}.weight"
        table = wanted[key].clone()
        if field in known:
            source = given[f"network.embedding.tables.{list(known).index(field)}.weight"]
            if source.shape[1] != table.shape[1]:
                raise WeightsError(
                    f"init_from: labels are embedded in {source.shape[1]} numbers there and "
                    f"{table.shape[1]} here; the networks must be the same."
                )
            with torch.no_grad():
                table[-1] = source[-1]  # "any"
                for row, name in enumerate(names):
                    if name in known[field]:
                        table[row] = source[known[field].index(name)]
        tables[key] = table
    return tables
