"""Settings are written into the stages and the card of a pipeline, and shown as YAML."""

from __future__ import annotations

import pytest

from cascade.errors import WeightsError
from cascade.pipeline import CascadePipeline
from cascade.recipe.reading import load_pipeline_recipe
from cascade.saving.pipelines import changeable_folder
from cascade.sweeping import applying
from cascade.sweeping.applying import apply_settings, recipe_sections

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
    cascade.save_pretrained(tmp_path / "mine", recipe=RECIPE)
    return tmp_path / "mine"


def settings_of(cascade, **changes):
    return {name: stage.sampling.changed(**changes) for name, stage in cascade.stages.items()}


def settings_in(folder):
    pipeline = CascadePipeline.from_pretrained(folder)
    return {name: stage.sampling for name, stage in pipeline.stages.items()}


def test_stages_and_card_have_the_settings_afterwards_and_the_recipe_stays(saved, cascade):
    settings = {
        "base": cascade.stages["base"].sampling.changed(guidance=3.0),
        "upsampler": cascade.stages["upsampler"].sampling.changed(augmentation_level=0.1, steps=9),
    }
    written = apply_settings(saved, settings)
    assert {path.name for path in written} == {"stage.json", "README.md"}
    assert settings_in(saved) == settings
    assert (saved / "pipeline.yaml").read_text() == RECIPE
    assert apply_settings(saved, settings) == []


def test_options_of_samplers_and_intervals_are_written_and_taken_away(saved, cascade):
    own = settings_of(cascade)
    base = own["base"].changed(eta=0.5, guidance=2.0, guidance_interval=(0.3, 3.0))
    apply_settings(saved, {**own, "base": base})
    assert settings_in(saved)["base"] == base
    apply_settings(saved, own)
    assert settings_in(saved) == own


def test_a_pipeline_without_a_recipe_gets_none(cascade, tmp_path):
    cascade.save_pretrained(tmp_path / "mine")
    written = apply_settings(tmp_path / "mine", settings_of(cascade, steps=7))
    assert [path.name for path in written] == ["README.md", "stage.json", "stage.json"]
    assert not (tmp_path / "mine" / "pipeline.yaml").exists()


def test_only_folders_that_are_here_can_be_changed(saved):
    assert changeable_folder(str(saved)) == saved
    with pytest.raises(WeightsError, match="save it with save_pretrained first"):
        changeable_folder("somebody/pipeline")


def test_a_damaged_stage_is_an_error_before_anything_is_written(saved, cascade):
    file = saved / "stages" / "upsampler" / "stage.json"
    file.write_text(file.read_text().replace('"steps": 4', '"steps": 0.5'))
    card = (saved / "README.md").read_text()
    with pytest.raises(WeightsError, match=r"stage\.json does not describe a stage"):
        apply_settings(saved, settings_of(cascade, steps=7))
    assert (saved / "README.md").read_text() == card


def test_an_apply_that_was_killed_goes_on(saved, cascade, monkeypatch):
    settings = settings_of(cascade, steps=7)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(applying, "_write_stage", killed)
    with pytest.raises(KeyboardInterrupt):
        apply_settings(saved, settings)
    monkeypatch.undo()
    apply_settings(saved, settings)
    assert settings_in(saved) == settings


def test_card_and_scheduler_say_how_it_samples_now(saved, cascade):
    apply_settings(saved, settings_of(cascade, steps=7, threshold="dynamic", percentile=0.9))
    CascadePipeline.from_pretrained(saved).save_pretrained(saved.with_name("again"))
    for file in ("README.md", "stages/base/scheduler/scheduler_config.json"):
        assert (saved / file).read_text() == (saved.with_name("again") / file).read_text()


def test_a_recipe_with_the_printed_sections_gives_the_same_settings(cascade, tmp_path):
    settings = settings_of(cascade, steps=7, guidance=1e-5)
    settings["base"] = settings["base"].changed(eta=0.5, guidance_interval=(0.3, 3.0))
    text = recipe_sections(settings)
    for name in settings:
        text = text.replace(f"- name: {name}\n", f"- name: {name}\n  recipe: tiny-16\n")
    (tmp_path / "pipeline.yaml").write_text(f"kind: pipeline\nname: mine\n{text}")
    recipe = load_pipeline_recipe(tmp_path / "pipeline.yaml")
    plain = {each.name: each.sampling.model_dump(exclude_none=True) for each in recipe.stages}
    trained = cascade.stages["base"].sampling.changed(sampler="ddpm", steps=99)
    for name, values in plain.items():
        assert trained.changed(**values) == settings[name]
