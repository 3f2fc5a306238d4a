"""Starts a run from the weights of a trained stage."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.autoencoder_stage import AutoencoderStage
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import WeightsError
from cascade.stage import Stage
from cascade.training.new_inputs import new_gate, new_vectors, widened_inputs

Weights = dict[str, Tensor]
MAX_NAMES = 4  # in a message


@dataclass(frozen=True)
class StartingPoint:
    """What a new stage took over from a trained one.

    Attributes:
        parameters: number of parameters of the new stage.
        new: number of parameters that the trained stage lacked, by name or class.
        left_out: number of parameters of the trained stage that the new one lacks, likewise.
        remarks: what differs between the noise processes, a sentence each.
    """

    parameters: int
    new: Mapping[str, int]
    left_out: Mapping[str, int]
    remarks: tuple[str, ...] = ()

    def text(self) -> str:
        """The numbers and a few names, as one sentence."""
        loaded = self.parameters - sum(self.new.values())
        parts = [f"{loaded:,} of {self.parameters:,} parameters loaded"]
        for words, counts in (("are newly initialised", self.new), ("are left out", self.left_out)):
            if counts:
                names = ", ".join(list(counts)[:MAX_NAMES])
                more = ", …" if len(counts) > MAX_NAMES else ""
                parts.append(f"{sum(counts.values()):,} {words} ({names}{more})")
        return "; ".join([*parts, *self.remarks])


def start_from(stage: Stage, trained: Stage) -> StartingPoint:
    """Copy the weights of a trained stage into a new one.

    The networks must be the same. Sizes in pixels, the probabilities of conditions and the names of
    classes may differ: a class keeps its embedding if the trained stage has a class of the same
    field and name; the embeddings of other classes start anew. The new stage may have more
    conditions: until their weights are trained, the outputs are those of the trained stage, unless
    cross-attention that it has already reads the tokens of a new condition.

    Args:
        stage: the new stage; its weights are replaced.
        trained: the stage to copy from.

    Returns:
        What was taken over, what begins anew, and what was left out.

    Raises:
        WeightsError: naming what does not fit.
    """
    _check_process(stage, trained)
    _check_same_encoders(stage, trained)
    source, weights = trained.state_dict(), stage.state_dict()
    tables, token_parts = _class_tables(stage, trained), _new_token_parts(stage, trained)
    anew = {name for names in token_parts.values() for name in names}
    vectors: dict[str, dict[str, Tensor]] = {}
    added: dict[str, Tensor] = {}
    gate: dict[str, Tensor] = {}
    remarks: list[str] = []
    if isinstance(stage, DiffusionStage) and isinstance(trained, DiffusionStage):
        vectors = {
            part: {n: each for n, each in own.items() if n not in anew}
            for part, own in new_vectors(stage, trained).items()
        }
        added = {name: each for own in vectors.values() for name, each in own.items()}
        gate = new_gate(stage, trained)
        added |= widened_inputs(stage, trained) | gate
        remarks = list(_schedule_remarks(stage, trained))
    for name in weights.keys() - tables.keys() - anew - added.keys():
        _check_same_shape(name, source, weights[name])
        weights[name] = source[name]
    stage.load_state_dict(weights | tables | added)
    class_rows = [_class_rows(each, other) for each, other in ((stage, trained), (trained, stage))]
    unused = source.keys() - weights.keys() - set(_table_names(trained).values())
    left_out = class_rows[1] | {name: source[name].numel() for name in sorted(unused)}
    new = class_rows[0] | {
        part: sum(weights[name].numel() for name in names) for part, names in token_parts.items()
    }
    new |= {
        part: sum(each.numel() for each in own.values())
        for part, own in vectors.items()
        if own and not own.keys() <= tables.keys()  # those are counted by class
    }
    if gate:
        new["gate"] = sum(each.numel() - source[name].numel() for name, each in gate.items())
    total = sum(each.numel() for each in weights.values())
    return StartingPoint(total, new, left_out, tuple(remarks))


def _schedule_remarks(stage: DiffusionStage, trained: DiffusionStage) -> list[str]:
    """What differs between the noise processes, or should."""
    schedule, before = stage.process.schedule, trained.process.schedule
    size, size_before = stage.space.longer_px, trained.space.longer_px
    remarks = []
    kinds = [(each.kind, each.train_steps) for each in (schedule, before)]
    if kinds[0] != kinds[1]:
        texts = [f"{kind} with {steps} steps" for kind, steps in kinds]
        remarks.append(f"the noise schedule is {texts[0]} now, and was {texts[1]}")
    shift = before.shift * size_before / size
    if size != size_before and not math.isclose(schedule.shift, shift, rel_tol=0.01):
        remarks.append(
            f"images have {size} px now, and had {size_before} px: a schedule shift of {shift:g} "
            f"would leave as much of the image at each timestep, it is {schedule.shift:g}"
        )
    std, std_before = (_residual_std(each) for each in (stage, trained))
    if std != std_before:
        remarks.append(
            f"the standard deviation of residuals is {std:g} now, and was {std_before:g}: it "
            "scales what the network reads and predicts"
        )
    return remarks


def _residual_std(stage: DiffusionStage) -> float:
    """The standard deviation of the residuals that a stage predicts; 0 if it predicts none."""
    return 0.0 if stage.process.residual is None else stage.process.residual.std


def _new_token_parts(stage: Stage, trained: Stage) -> dict[str, list[str]]:
    """Names of the weights for tokens, by part, if only the new stage has tokens."""
    if not isinstance(stage, DiffusionStage) or not isinstance(trained, DiffusionStage):
        return {}
    if trained.network.token_weights:
        return {}
    parts = stage.network.token_weights
    return {part: [f"network.{name}" for name in names] for part, names in parts.items()}


def _class_rows(stage: Stage, other: Stage) -> dict[str, int]:
    """Sizes of the embeddings of classes that another stage lacks, and of whole fields of them."""
    weights, classes, other_classes = stage.state_dict(), _classes(stage), _classes(other)
    rows: dict[str, int] = {}
    for field, table in _table_names(stage).items():
        if table not in weights:
            continue
        if field not in other_classes:
            rows[f"all classes of {field}"] = weights[table].numel()
            continue
        names = [name for name in classes[field] if name not in other_classes[field]]
        rows |= {f"{field} {name}": weights[table].shape[1] for name in names}
    return rows


def _check_process(stage: Stage, trained: Stage) -> None:
    """Check that both networks predict the same quantity."""
    if isinstance(stage, AutoencoderStage) and isinstance(trained, AutoencoderStage):
        return
    if not isinstance(stage, DiffusionStage) or not isinstance(trained, DiffusionStage):
        raise WeightsError(
            f"cannot start from that {trained.kind} stage: this one is a {stage.kind} stage."
        )
    if stage.process.prediction != trained.process.prediction:
        raise WeightsError(
            f"cannot start from that stage: that stage predicts {trained.process.prediction}, this "
            f"one {stage.process.prediction}; use the same prediction."
        )
    if stage.network.has_attention != trained.network.has_attention:
        raise WeightsError(
            "cannot start from that stage: one of the two has self-attention and the other does "
            "not; the networks must be the same."
        )
    if (stage.process.residual is None) != (trained.process.residual is None):
        raise WeightsError(
            "cannot start from that stage: one of the two predicts residuals and the other whole "
            "images; let both or neither predict residuals."
        )


def _check_same_encoders(stage: Stage, trained: Stage) -> None:
    """Check that the conditions which both stages have are encoded by the same models."""
    encoders = {each.name: each.encoded_by for each in stage.conditions}
    for condition in trained.conditions:
        theirs, ours = condition.encoded_by, encoders.get(condition.name)
        if theirs != ours and condition.name in encoders:
            raise WeightsError(
                f"cannot start from that stage: its {condition.name} encoder is {theirs}, this "
                f"one's is {ours}; use the same encoder."
            )


def _class_tables(stage: Stage, trained: Stage) -> Weights:
    """The new stage's class embeddings, with the rows of the classes that both stages have."""
    source, weights = trained.state_dict(), stage.state_dict()
    old_classes, old_tables = _classes(trained), _table_names(trained)
    tables = {}
    for field, table in _table_names(stage).items():
        names, old_names = _classes(stage)[field], old_classes.get(field)
        if table not in weights:  # a network of one's own, which keeps its embeddings elsewhere
            _check_same_classes(field, names, old_names)
            continue
        tables[table] = weights[table].clone()
        if old_names is None and any("embedding.parts." in name for name in source):
            tables[table].zero_()  # a new field beside others changes nothing at first
        if old_names is not None:
            _copy_rows(tables[table], names, source.get(old_tables[field]), old_names)
    return tables


def _classes(stage: Stage) -> Mapping[str, Sequence[str]]:
    return {field: names for each in stage.conditions for field, names in each.classes.items()}


def _table_names(stage: Stage) -> dict[str, str]:
    """For each label field, the name of the weights that hold its embedding."""
    return {
        field: f"network.embedding.parts.{condition.name}.{place}.weight"
        for condition in stage.conditions
        for place, field in enumerate(condition.classes)
    }


def _copy_rows(
    table: Tensor, names: Sequence[str], source: Tensor | None, old_names: Sequence[str]
) -> None:
    """Copy the rows of shared classes and the last row, which stands for "any"."""
    if source is None or source.shape[1] != table.shape[1]:
        width = "another place" if source is None else f"{source.shape[1]} numbers"
        raise WeightsError(
            f"cannot start from that stage: it embeds labels in {width}, this one in "
            f"{table.shape[1]} numbers; the networks must be the same."
        )
    with torch.no_grad():
        table[-1] = source[-1]
        for row, name in enumerate(names):
            if name in old_names:
                table[row] = source[list(old_names).index(name)]


def _check_same_shape(name: str, source: Weights, weights: Tensor) -> None:
    if name not in source:
        attention = re.match(r".*\.attentions\.\d+", name)
        if attention is not None and f"{attention[0]}.to_q.weight" in source:
            raise WeightsError(
                "cannot start from that stage: it has self-attention, which is another layer in a "
                "U-Net that attends to tokens too; start from a stage without self-attention, or "
                "from none."
            )
        raise WeightsError(
            f"cannot start from that stage: it has no weights {name!r}; it has another network."
        )
    if source[name].shape != weights.shape:
        raise WeightsError(
            f"cannot start from that stage: {name!r} has shape {tuple(source[name].shape)} there "
            f"and {tuple(weights.shape)} here; the networks must be the same."
        )


def _check_same_classes(field: str, names: Sequence[str], old_names: Sequence[str] | None) -> None:
    if old_names is None or list(names) != list(old_names):
        raise WeightsError(
            f"cannot start from that stage: the names of {field!r} differ, and this network has no "
            "table in which classes keep their embeddings; use the same names."
        )
