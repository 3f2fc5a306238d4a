"""Runs on scenes with missing values: from the command line, stopped and resumed, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file
from tiny_autoencoders import IdentityAutoencoder

from cascade.autoencoder_stage import AutoencoderStage
from cascade.building.training import build_trainer
from cascade.contract import Contract
from cascade.data.sources import open_source
from cascade.data.training_images import TrainingImages
from cascade.errors import CascadeError, ContractError
from cascade.imaging.rasters.layout import Layout
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.space import Space
from cascade.stage_kinds import load_stage
from cascade.training import step_log
from cascade.training.objectives.autoencoding import Autoencoding
from cascade.training.settings import TrainingSettings
from cascade.training.trainer import Trainer

NODATA = -9999
TINY = [
    "condition.labels=null",
    "sampling.guidance=1",
    "space.channels=2",
    "network={kind: transformer, patch_size: 4, width: 16, depth: 1, fine_width: 8, fine_depth: 1}",
    "network.head_channels=8",
    "data.range=[0,4000]",
    "data.crop_px=8",
    "data.rotate90=true",
    "train.batch_size=4",
    "train.images=24",
    "train.precision=fp32",
    "train.sample_every_images=0",
    "train.trackers=[]",
]


@pytest.fixture
def scenes(tmp_path) -> Path:
    """A folder of GeoTIFFs of two bands, all but one with nodata along their edges."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    tags = [
        (33550, "d", 3, (10.0, 10, 0), True),
        (33922, "d", 6, (0.0, 0, 0, 5e5, 5e6, 0), True),
        (34735, "H", 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633), True),
        (42113, "s", 0, str(NODATA), True),
    ]
    draw = np.random.default_rng(0)
    for number in range(6):
        values = draw.integers(0, 4000, (2, 20, 24)).astype(np.int16)
        values[:, :, : 4 * number] = NODATA  # the last one has a fifth left
        values[1, : 2 * number] = NODATA
        tifffile.imwrite(
            folder / f"{number}.tif", values, photometric="minisblack", planarconfig="separate",
            metadata=None, extratags=tags,
        )  # fmt: skip
    return folder


def train(scenes: Path, out: Path, *overrides: str, report=None) -> Trainer:
    values = [*TINY, f"data.path={scenes}", "data.missing=mask", *overrides]
    recipe = load_stage_recipe(find_recipe("tiny-16", "stages"), values)
    trainer = build_trainer(recipe, out, report=report)
    trainer.run()
    return trainer


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "000000000024" / "stage.safetensors")


def test_scenes_with_nodata_train_from_the_command_line(command, scenes, tmp_path, caplog):
    out = tmp_path / "run"
    arguments = ("train", "tiny-16", *TINY, f"data.path={scenes}", "--out", out)
    refused = command(*arguments)
    assert refused.code == 1
    assert "of its values are NaN or nodata; crop or fill such areas, or train with " in refused.err
    assert "data.missing=mask, which leaves them out of the loss" in refused.err
    masked = ("data.missing=mask", "data.validation=0.4", "train.validate_every_images=24")
    done = command(*arguments, *masked, "train.sample_every_images=24")
    assert done.code == 0, done.err
    messages = [record.getMessage() for record in caplog.records]
    assert any(
        "images with missing values, which are left out of the loss: 3" in m for m in messages
    )
    (broken,) = {each for each in messages if "skipping a broken image" in each}
    assert "5.tif: at the stage's 16 px, every value depends on one that is NaN or nod" in broken
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    by_kind = {line.get("kind", "step"): line for line in lines}
    assert by_kind.keys() == {"step", "validation", "meters"}
    numbers = [each for line in lines for each in line.values() if isinstance(each, float)]
    assert np.isfinite(numbers).all()
    assert all(each.isfinite().all() for each in load_stage(out / "stage").state_dict().values())


def test_what_is_stored_where_values_are_missing_changes_no_weight(scenes, tmp_path):
    train(scenes, tmp_path / "first")
    for path in scenes.iterdir():
        with tifffile.TiffFile(path) as file:
            values = file.asarray().astype(np.float32)
        values[values == NODATA] = np.nan
        tifffile.imwrite(path, values, photometric="minisblack", planarconfig="separate")
    train(scenes, tmp_path / "second")
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(first[name].equal(second[name]) for name in first)


def test_a_resumed_run_equals_one_without_a_gap_bit_by_bit(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(step_log, "LOG_EVERY_STEPS", 3)
    train(scenes, tmp_path / "whole", "train.workers=1")

    def stop(line: dict[str, float]) -> None:
        parts[-1].stop_requested = True

    parts = []
    recipe = load_stage_recipe(
        find_recipe("tiny-16", "stages"), [*TINY, f"data.path={scenes}", "data.missing=mask"]
    )
    for end in (12, 24):
        parts.append(build_trainer(recipe, tmp_path / "parts", report=stop))
        parts[-1].run()
        assert parts[-1].state.images_seen == end
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == resumed.keys()
    assert all(whole[name].equal(resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [
        ("data.missing=mask", "data.missing=refuse", r"data\.missing=mask \(now refuse\)"),
        ("data.missing=refuse", "data.missing=mask", r"data\.missing=refuse \(now mask\)"),
        ("data.nodata=-1", "data.nodata=-2", r"data\.nodata=-1\.0 \(now -2\.0\)"),
    ],
)
def test_a_run_does_not_resume_with_other_known_values(scenes, tmp_path, first, then, words):
    for number in range(1, 6):
        (scenes / f"{number}.tif").unlink()  # what is left has no missing values
    few = ("train.batch_size=1", "train.images=2")
    train(scenes, tmp_path / "run", *few, first)
    with pytest.raises(CascadeError, match=rf"was trained with {words}; set this back"):
        train(scenes, tmp_path / "run", *few, then)


def test_what_counts_as_nodata_may_change_where_missing_values_are_refused(scenes, tmp_path):
    for number in range(1, 6):
        (scenes / f"{number}.tif").unlink()
    few = ("train.batch_size=1", "train.images=2", "data.missing=refuse")
    train(scenes, tmp_path / "run", *few, "data.nodata=-1")
    assert train(scenes, tmp_path / "run", *few, "data.nodata=-2").state.images_seen == 2


def test_an_objective_that_counts_all_values_does_not_train_on_them(scenes, tmp_path):
    space = Space(size_px=16, channels=2, range=(0, 4000))
    stage = AutoencoderStage.of_network(IdentityAutoencoder(), space)
    source = open_source(str(scenes), layout=Layout(2))
    settings = TrainingSettings(images=4, batch_size=2, trackers=(), objective="autoencoding")
    images, others = (
        TrainingImages(source, Contract(space), missing=missing) for missing in ("mask", "refuse")
    )
    with pytest.raises(ContractError, match="denoising does, but autoencoding counts all"):
        Trainer(stage, images, tmp_path / "run", settings, objective=Autoencoding(beta=0.0))
    with pytest.raises(ContractError, match="denoising does, but autoencoding counts all"):
        Trainer(
            stage, others, tmp_path / "run", settings, validation=images,
            objective=Autoencoding(beta=0.0),
        )  # fmt: skip
