"""Settings that were found are written into a pipeline: stages and recipe, comments kept."""

from __future__ import annotations

import pytest

from cascade.errors import CascadeError, OutputError, WeightsError
from cascade.pipeline import CascadePipeline
from cascade.recipe.reading import load_pipeline_recipe
from cascade.sweeping import applying
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
    assert {path.name for path in written} == {"stage.json", "pipeline.yaml", "README.md"}
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
    written = apply_settings(tmp_path / "mine", settings)
    assert [path.name for path in written] == ["README.md", "stage.json", "stage.json"]
    assert not (tmp_path / "mine" / "pipeline.yaml").exists()


def test_only_folders_that_are_here_can_be_changed(saved):
    assert check_applicable(str(saved)) == saved
    with pytest.raises(WeightsError, match="save it with save_pretrained first"):
        check_applicable("somebody/pipeline")


def settings_of(cascade, **changes):
    return {name: stage.sampling.changed(**changes) for name, stage in cascade.stages.items()}


def test_the_recipe_keeps_what_stands_before_it_and_its_long_lines(cascade, tmp_path):
    recipe = "# Made by hand.\n---\n" + RECIPE.replace(
        "mine\n", f"mine\ndescription: {'ab ' * 60}c\n"
    )
    cascade.save_pretrained(tmp_path / "mine", extra_files={"pipeline.yaml": recipe})
    apply_settings(tmp_path / "mine", settings_of(cascade, steps=7, guidance=2.0))
    text = (tmp_path / "mine" / "pipeline.yaml").read_text()
    assert [line for line in recipe.splitlines() if line not in text.splitlines()] == []


def test_an_apply_that_was_killed_goes_on(saved, cascade, monkeypatch):
    settings = settings_of(cascade, steps=7)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(applying, "_change_stage", killed)
    with pytest.raises(KeyboardInterrupt):
        apply_settings(saved, settings)
    monkeypatch.undo()
    apply_settings(saved, settings)
    loaded = CascadePipeline.from_pretrained(saved)
    assert {name: stage.sampling for name, stage in loaded.stages.items()} == settings
    recipe = load_pipeline_recipe(saved / "pipeline.yaml")
    assert [section.sampling.steps for section in recipe.stages] == [7, 7]


def test_a_recipe_that_says_something_else_than_the_stages_is_brought_into_line(saved, cascade):
    file = saved / "pipeline.yaml"
    apply_settings(saved, settings_of(cascade))  # its guidance is not that of the stage
    recipe = load_pipeline_recipe(file)
    assert recipe.stages[0].sampling.guidance == cascade.stages["base"].sampling.guidance
    assert apply_settings(saved, settings_of(cascade)) == []


def test_card_and_scheduler_say_how_it_samples_now(saved, cascade):
    settings = settings_of(cascade, steps=7, threshold="dynamic", percentile=0.9)
    apply_settings(saved, settings)
    CascadePipeline.from_pretrained(saved).save_pretrained(saved.with_name("again"))
    for file in ("README.md", "stages/base/scheduler/scheduler_config.json"):
        assert (saved / file).read_text() == (saved.with_name("again") / file).read_text()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (RECIPE.replace("name: upsampler", "name: up"), "are not those of the pipeline"),
        (RECIPE + "\n: [", "not valid YAML"),
        (RECIPE.replace("stages:", "stagess:"), "unknown key 'stagess'"),
    ],
)
def test_a_recipe_that_cannot_be_changed_is_told_before(cascade, tmp_path, recipe, said):
    cascade.save_pretrained(tmp_path / "mine", extra_files={"pipeline.yaml": recipe})
    with pytest.raises(CascadeError, match=said):
        check_applicable(str(tmp_path / "mine"))


def test_settings_that_stages_share_in_the_recipe_are_not_changed_for_both(cascade, tmp_path):
    shared = RECIPE.replace("sampling:\n", "sampling: &same\n") + "    sampling: *same\n"
    own = {name: stage.sampling.changed(guidance=2.0) for name, stage in cascade.stages.items()}
    for name, stage in cascade.stages.items():
        stage.sampling = own[name]
    cascade.save_pretrained(tmp_path / "mine", extra_files={"pipeline.yaml": shared})
    wanted = {**own, "base": own["base"].changed(guidance=3.0)}
    with pytest.raises(OutputError, match="shares its settings with another"):
        apply_settings(tmp_path / "mine", wanted)
    assert (tmp_path / "mine" / "pipeline.yaml").read_text() == shared
    loaded = CascadePipeline.from_pretrained(tmp_path / "mine")
    assert loaded.stages["base"].sampling == own["base"]
