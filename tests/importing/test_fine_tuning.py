"""An imported stage is trained further, with other classes, another size and further conditions."""

from __future__ import annotations

import pytest
import torch
from adm_reference import Reference
from safetensors.torch import save_file

from cascade import import_stage, load_stage
from cascade.building.training import build_trainer
from cascade.errors import WeightsError
from cascade.recipe.reading import load_stage_recipe

RECIPE = """
kind: stage
name: further
space: {{size_px: 16}}
condition: {{labels: {{fields: [class], drop: 0.1}}}}
network: {{kind: trained, stage: {stage}}}
diffusion: {{schedule: linear, prediction: eps, learned_variance: true}}
data: {{path: {data}}}
train:
  init_from: {stage}
  images: 4
  batch_size: 2
  warmup_images: 0
  sample_every_images: 0
  precision: fp32
sampling: {{steps: 2, guidance: 2}}
"""


@pytest.fixture
def imported(tmp_path):
    file = tmp_path / "model.safetensors"
    weights = Reference(classes=2).weights
    save_file({name: each.float() for name, each in weights.items()}, file)
    stage = import_stage(file, size_px=8, heads=4, class_names=["red", "green"])
    stage.save_pretrained(tmp_path / "imported")
    return tmp_path / "imported"


def test_classes_keep_their_embeddings_by_name(imported, pictures, tmp_path, caplog):
    caplog.set_level("INFO", logger="cascade")
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.format(stage=imported, data=pictures))
    trainer = build_trainer(load_stage_recipe(file, []), tmp_path / "run")
    table = trainer.state.stage.state_dict()["network.embedding.parts.labels.0.weight"]
    before = load_stage(imported).state_dict()["network.embedding.parts.labels.0.weight"]
    assert table.shape[0] == 4  # blue, red, red-dot, any
    assert table[1].equal(before[0])  # red
    assert "16 px now, and had 8 px: a schedule shift of 0.5" in caplog.text
    trainer.run()
    stage = load_stage(tmp_path / "run" / "stage")
    assert stage.network.kind == "adm_unet"
    assert torch.isfinite(stage.run([0])).all()


def test_only_imported_networks_are_taken_over(base_stage, pictures, tmp_path):
    base_stage.save_pretrained(tmp_path / "own")
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.format(stage=tmp_path / "own", data=pictures))
    with pytest.raises(WeightsError, match="is a unet; describe it in the recipe"):
        build_trainer(load_stage_recipe(file, []), tmp_path / "run")
