"""Trains as one of several processes, and writes which part of the weights this one holds.

`OUT RECIPE key=value …`; the counts, held and in all, go to `OUT.RANK.json`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor
from torch.distributed.tensor import DTensor

from cascade.building.training import build_trainer
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.training.checkpoint import RunState


def counts(tensors: Iterable[Tensor]) -> list[int]:
    """Elements that are here, and elements in all."""
    pairs = [(t.to_local() if isinstance(t, DTensor) else t, t) for t in tensors]
    return [sum(here.numel() for here, _ in pairs), sum(whole.numel() for _, whole in pairs)]


def held(state: RunState) -> dict[str, list[int]]:
    moments = [
        moment
        for optimiser in state.optimisers
        for values in optimiser.state.values()
        for moment in values.values()
        if moment.ndim
    ]
    return {
        "weights": counts(state.stage.parameters()),
        "ema": counts(state.ema.shadow_params),
        "averages": counts(value for each in state.power_averages for value in each.values),
        "moments": counts(moments),
    }


if __name__ == "__main__":
    out, name, *values = sys.argv[1:]
    trainer = build_trainer(load_stage_recipe(find_recipe(name, "stages"), values), Path(out))
    trainer.run()
    Path(f"{out}.{os.environ['RANK']}.json").write_text(json.dumps(held(trainer.state)))
