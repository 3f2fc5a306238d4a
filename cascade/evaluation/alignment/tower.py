"""A tower as a judge of alignment; see `cascade.vision.tower`.

A tower that steers a pipeline must not judge it: its pipelines draw what the tower looks for.

Shapes: B images, M texts, H and W pixels, E width of an embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import final

from torch import Tensor

from cascade.evaluation.alignment.model import AlignmentModel
from cascade.saving.components import weights_digest
from cascade.vision.tower import Tower


@final
class AlignmentTower(AlignmentModel):
    """A trained tower as a judge.

    Args:
        tower: the tower.
    """

    def __init__(self, tower: Tower) -> None:
        facts = tower.tower_facts
        self.tower = tower
        self.network = tower.network
        self.name = facts.name
        seen = "" if facts.seen_px is None else f"{facts.seen_px} px, then to "
        self.resizing = f"antialiased bicubic to {seen}{facts.size_px} px"
        self.trained_on = facts.trained_on
        self.contrasts = facts.contrasts

    def image_embeddings(self, images: Tensor) -> Tensor:
        tower = self.tower
        keeps_detail = tower.tower_facts.seen_px is None
        return tower.directions(images if keeps_detail else tower.seen(images))

    def text_embeddings(self, texts: Sequence[str]) -> Tensor:
        return self.tower.text_directions(texts)

    def fingerprint(self) -> str:
        facts = json.dumps(asdict(self.tower.tower_facts), sort_keys=True)
        return hashlib.sha256(f"{facts}\n{weights_digest(self.network)}".encode()).hexdigest()
