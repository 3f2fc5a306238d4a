"""The signals of all conditions of a stage: in training, in sampling, and for guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Request
from cascade.conditioning.signals import Signals
from cascade.diffusion.noise import SeededNoise
from cascade.space import Space


def training_signals(conditions: Sequence[Condition], batch: Batch, space: Space) -> Signals:
    """The signals of a training batch. Each condition draws from its own random stream.

    Raises:
        ContractError: if the batch lacks something that a condition needs.
    """
    signals = Signals()
    noise = SeededNoise(batch.seeds, "train", device=batch.images.device)
    for each in conditions:
        signals = signals.merged(each.of_batch(batch, space, noise.fork(each.name)))
    return signals


def counted_values(
    conditions: Sequence[Condition], batch: Batch, signals: Signals
) -> Tensor | None:
    """The values that the loss counts: (B, C or 1, H, W), 1 or 0; None for all of them.

    Args:
        conditions: conditions of the stage.
        batch: the training batch, which knows what is missing in files.
        signals: what `training_signals` returned for the batch.
    """
    counted = None if batch.known is None else batch.known.float()
    for each in conditions:
        own = each.counted_pixels(signals.only(each.name))
        if own is not None:
            counted = own if counted is None else counted * own
    return counted


def request_signals(conditions: Sequence[Condition], request: Request) -> Signals:
    """The signals of one call of a stage. Each condition draws from its own random stream.

    Raises:
        ContractError: if an input is missing or does not fit.
    """
    signals = Signals()
    for each in conditions:
        signals = signals.merged(each.of_request(_own(request, each)))
    return signals


def against_signals(conditions: Sequence[Condition], request: Request, signals: Signals) -> Signals:
    """The signals from which guidance pushes away, of those conditions whose signals differ.

    Args:
        conditions: conditions of the stage.
        request: the call.
        signals: what `request_signals` returned for it.
    """
    against = Signals()
    for each in conditions:
        own = signals.only(each.name)
        other = each.against_request(_own(request, each), own)
        if other is not own:
            against = against.merged(other)
    return against


def absent_signals(conditions: Sequence[Condition], signals: Signals) -> Signals:
    """Signals without information, of those conditions that training drops now and then.

    Args:
        conditions: conditions of the stage.
        signals: signals of all of them.
    """
    absent = Signals()
    for each in conditions:
        if each.drop > 0:
            absent = absent.merged(each.absent(signals.only(each.name)))
    return absent


def _own(request: Request, condition: Condition) -> Request:
    """The request with the condition's own random stream."""
    return replace(request, noise=request.noise.fork(condition.name))
