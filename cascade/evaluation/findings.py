"""What the evaluation of a pipeline gives, before it is written down.

Shapes: B images, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from cascade.evaluation.observation import Observation
from cascade.evaluation.scores import Measured

REAL = "held-out pictures"


@dataclass(kw_only=True)
class Findings:
    """What the evaluation of a pipeline found.

    Attributes:
        measured: the figures; the last is the whole pipeline.
        settings: how each stage sampled.
        notes: what one must know to read the figures.
        pictures: by name, sets (B, 3, H, W) uint8 to show.
        samples: what the whole pipeline made; None where pictures were restored.
        training: what is known of the training pictures; None if they were not given.
    """

    measured: list[Measured] = field(default_factory=list)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    samples: Observation | None = None
    training: Observation | None = None
