"""The signals of all conditions of a stage: in training, in sampling, and without conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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


def request_signals(conditions: Sequence[Condition], request: Request) -> Signals:
    """The signals of one call of a stage. Each condition draws from its own random stream.

    Raises:
        ContractError: if an input is missing or does not fit.
    """
    signals = Signals()
    for each in conditions:
        own = replace(request, noise=request.noise.fork(each.name))
        signals = signals.merged(each.of_request(own))
    return signals


def without_conditions(conditions: Sequence[Condition], signals: Signals) -> Signals:
    """The same signals without the conditions that training sometimes drops, for guidance."""
    for each in conditions:
        if each.drop > 0:
            own = signals.only(each.name)
            signals = signals.merged(each.absent(own))
            if own.channels:
                signals = signals.without_features()
    return signals
