"""What the tests of training share: trainers of the tiny recipes, and shards."""

from __future__ import annotations

from pathlib import Path

import pytest
from webdataset import TarWriter

from cascade.building.training import build_trainer
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.training.trainer import Trainer

SHORT = [
    "train.images=320",
    "train.batch_size=16",
    "train.warmup_images=32",
    "train.precision=fp32",
    "train.sample_every_images=0",
    "train.checkpoint_every_images=320",
    "train.trackers=[]",
]
SMALLER = {"tiny-16": "network.depth=1", "tiny-16-to-32": "network.channels=[16,32]"}


@pytest.fixture(scope="session")
def make_trainer(pictures):
    """A function that makes a trainer of a tiny recipe for 320 images, with some values changed."""

    def make(out: Path, *overrides: str, recipe: str = "tiny-16", **options) -> Trainer:
        values = [f"data.path={pictures}", *SHORT, SMALLER[recipe], *overrides]
        return build_trainer(
            load_stage_recipe(find_recipe(recipe, "stages"), values), out, **options
        )

    return make


@pytest.fixture(scope="session")
def shards(pictures, tmp_path_factory) -> str:
    """The pictures as two webdataset shards, with their classes in JSON."""
    folder = tmp_path_factory.mktemp("shards")
    files = sorted(pictures.rglob("*.png"), key=lambda file: file.relative_to(pictures).as_posix())
    for number in range(2):
        with TarWriter(str(folder / f"{number}.tar")) as tar:
            for file in files[number * 9 : number * 9 + 9]:
                key = file.relative_to(pictures).with_suffix("").as_posix()
                tar.write(
                    {"__key__": key, "png": file.read_bytes(), "json": {"class": file.parent.name}}
                )
    return str(folder / "{0..1}.tar")
