"""Settings that were found are written into a pipeline: stages and recipe, comments kept."""

from __future__ import annotations

import pytest

from cascade.errors import WeightsError
from cascade.pipeline import CascadePipeline
from cascade.recipe import load_pipeline_recipe
from cascade.sweeping.applying import apply_settings, check_applicable

pytest.importorskip("ruamel.yaml")

RECIPE = """\
# Two stages.
kind: pipeline
name: mine
stages:
  - name: base
    recipe: tiny-16
    sampling:
      guidance: 2.0        # of 1 to 5 the best
  - name: upsampler        # enlarges
    recipe: "tiny-16-to-32"
"""


@pytest.fixture
def saved(cascade, tmp_path):
    cascade.save_pretrained(tmp_path / "mine", extra_files={"pipeline.yaml": RECIPE})
    return tmp_path / "mine"


def test_stages_and_recipe_have_the_settings_afterwards(saved, cascade):
    settings = {
        "base": cascade.stages["base"].sampling.changed(guidance=3.0),
        "upsampler": cascade.stages["upsampler"].sampling.changed(augmentation_level=0.1, steps=9),
    }
    written = apply_settings(saved, settings)
    assert {path.name for path in written} == {"stage.json", "pipeline.yaml"}
    loaded = CascadePipeline.from_pretrained(saved)
    assert {name: stage.sampling for name, stage in loaded.stages.items()} == settings
    recipe = load_pipeline_recipe(saved / "pipeline.yaml")
    assert recipe.stages[0].sampling.guidance == 3.0
    found = recipe.stages[1].sampling.model_dump(exclude_none=True)
    assert found == {"augmentation_level": 0.1, "steps": 9}
    text = (saved / "pipeline.yaml").read_text()
    expected = RECIPE.replace("guidance: 2.0 ", "guidance: 3.0 ")
    assert text.startswith(expected.rstrip("\n"))
    assert apply_settings(saved, settings) == []
    assert (saved / "pipeline.yaml").read_text() == text


def test_a_pipeline_without_a_recipe_keeps_its_stages_only(cascade, tmp_path):
    cascade.save_pretrained(tmp_path / "mine")
    settings = {name: stage.sampling.changed(steps=7) for name, stage in cascade.stages.items()}
    assert len(apply_settings(tmp_path / "mine", settings)) == 2
    assert not (tmp_path / "mine" / "pipeline.yaml").exists()


def test_only_folders_that_are_here_can_be_changed(saved):
    assert check_applicable(str(saved)) == saved
    with pytest.raises(WeightsError, match="save it with save_pretrained first"):
        check_applicable("somebody/pipeline")
