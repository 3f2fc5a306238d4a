"""What the tests of training share: trainers of the tiny recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.build import build_trainer
from cascade.recipe import find_recipe, load_stage_recipe
from cascade.training.trainer import Trainer

SHORT = [
    "train.images=320",
    "train.batch_size=16",
    "train.warmup_images=32",
    "train.precision=fp32",
    "train.sample_every_images=0",
    "train.checkpoint_every_images=320",
]


@pytest.fixture
def make_trainer(pictures):
    """A function that makes a trainer of a tiny recipe for 320 images, with some values changed."""

    def make(out: Path, *overrides: str, recipe: str = "tiny-16", **options) -> Trainer:
        values = [f"data.path={pictures}", *SHORT, *overrides]
        return build_trainer(
            load_stage_recipe(find_recipe(recipe, "stages"), values), out, **options
        )

    return make
