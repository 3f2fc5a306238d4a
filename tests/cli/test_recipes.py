"""`ls`, `show`, `keys`, `copy`, `validate` and `doctor`."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from cascade.extras import DEVELOPERS, EXTRAS, install_command
from cascade.recipe.finding import find_recipe, list_recipes, recipe_name
from cascade.recipe.reading import dump_recipe, load_any_recipe, load_stage_recipe

TINY = find_recipe("tiny-16", "stages")


def test_ls_lists_every_recipe(command):
    listed = command("ls")
    assert listed.code == 0
    rows = [line.split() for line in listed.out.splitlines()]
    text = " ".join(" ".join(row) for row in rows)
    assert load_stage_recipe(TINY).description[:30] in text
    for kind, word in (("stages", "stage"), ("pipelines", "pipeline")):
        for path in list_recipes(kind):
            assert [row[:2] for row in rows].count([word, recipe_name(path)]) == 1


def test_show_prints_the_whole_recipe_so_that_it_can_be_used(command, tmp_path):
    outcome = command("show", "tiny-16", "train.batch_size=7", "train.learning_rate=1e-4")
    assert outcome.code == 0
    (tmp_path / "shown.yaml").write_text(outcome.out)
    recipe = load_stage_recipe(TINY, ["train.batch_size=7", "train.learning_rate=1e-4"])
    assert load_any_recipe(str(tmp_path / "shown.yaml")) == recipe
    assert recipe.train.learning_rate == 1e-4
    assert outcome.out == dump_recipe(recipe)


def test_show_prints_the_settings_that_the_recipes_of_a_pipeline_state(command, tmp_path):
    outcome = command("show", "tiny-32")
    assert outcome.code == 0, outcome.err
    path = find_recipe("tiny-32", "pipelines")
    assert outcome.out.startswith(f"# in {path.parent}, without weights\n")
    base, upsampler = yaml.safe_load(outcome.out)["stages"]
    assert base["sampling"] == load_stage_recipe(TINY).sampling.model_dump(exclude_none=True)
    assert base["sampling"].keys() >= {"steps", "guidance"}
    assert None not in upsampler["sampling"].values()
    (tmp_path / "pipeline.yaml").write_text(outcome.out)
    again = command("show", tmp_path).out
    assert again.splitlines()[1:] == outcome.out.splitlines()[1:]


def test_show_prints_the_settings_that_a_saved_pipeline_has(command, tmp_path):
    folder = find_recipe("emoji-1024", "pipelines").parent
    mine = shutil.copytree(folder, tmp_path / "mine")
    file = mine / "stages" / "base" / "stage.json"
    config = json.loads(file.read_text())
    config["sampling"] |= {"steps": 17, "threshold": "dynamic", "sampler": "ddpm"}
    file.write_text(json.dumps(config))
    document = json.loads(command("show", mine, "--json").out)
    assert (document["folder"], document["has_weights"]) == (str(mine), True)
    settings = {each["name"]: each["sampling"] for each in document["stages"]}
    assert settings["base"] == {
        **{"sampler": "ddpm", "steps": 17, "guidance": 2.0, "guidance_interval": "none"},
        **{"threshold": "dynamic", "percentile": 0.995, "reuse": 1, "timestep_shift": 1.0},
        **{"variance": "small"},
    }
    assert settings["upsampler_256"]["steps"] == 2
    assert document["classes"].keys() == {"class", "style"}
    assert "# style: fluent, fluent-3d, fluent-flat, noto, twemoji\n" in command("show", mine).out
    kept = json.loads(command("show", mine, "description=other", "--json").out)
    assert (kept["description"], kept["stages"]) == ("other", document["stages"])
    changed = f"stages=[{{name: base, recipe: {TINY}, sampling: {{steps: 9}}}}]"
    (base,) = yaml.safe_load(command("show", mine, changed).out)["stages"]
    assert base["sampling"] == load_stage_recipe(TINY).sampling.model_dump(exclude_none=True) | {
        "steps": 9
    }


def test_show_prints_no_settings_for_a_stage_without_steps(command):
    base, decoder = yaml.safe_load(command("show", "pipelines/emoji-latent-256").out)["stages"]
    assert base["sampling"]["steps"] == 30
    assert decoder == {"name": "decoder", "recipe": "emoji-vae", "sampling": {}}


def test_show_prints_long_values_whole(command, tmp_path):
    path = "/".join(["a long folder name"] * 20)
    outcome = command("show", "tiny-16", f"data.path={path}")
    (tmp_path / "shown.yaml").write_text(outcome.out)
    assert load_any_recipe(str(tmp_path / "shown.yaml")).data.path == path


def test_keys_prints_what_a_section_takes(command):
    rows = [line.split("\t") for line in command("keys", "train.lora").out.splitlines()]
    assert [row[:3] for row in rows] == [
        ["train.lora.rank", "whole number above 0", "8"],
        ["train.lora.alpha", "number above 0", "null"],
        ["train.lora.targets", "list of texts", "null"],
    ]
    (width, *_) = command("keys", "network").out.splitlines()[1:]
    assert width.startswith("network.patch_size (kind: unet)\t")
    assert command("keys", "trian").err == (
        "cascade: unknown section 'trian': did you mean 'train' or 'train.lora'?\n"
    )


def test_copy_copies_and_never_overwrites_unless_forced(command, tmp_path):
    mine = tmp_path / "deep" / "mine.yaml"
    copied = command("copy", "tiny-16", mine)
    assert copied.code == 0
    assert f"cascade validate {mine} data.path=YOUR_IMAGES\n" in copied.out
    text = TINY.read_text()
    assert mine.read_text() == text.replace("name: tiny-16\n", "name: mine\n") != text
    mine.write_text("changed")
    refused = command("copy", "tiny-16", mine)
    assert refused.code == 1
    assert refused.err == f"cascade: {mine} exists; choose another name, or add --force.\n"
    assert mine.read_text() == "changed"
    assert command("copy", "tiny-16", mine, "--force").code == 0
    assert load_stage_recipe(mine).name == "mine"
    for name in ("010", "null", "yes", "my stage"):
        assert command("copy", "tiny-16", tmp_path / f"{name}.yaml").code == 0
        assert load_stage_recipe(tmp_path / f"{name}.yaml").name == name
    assert command("copy", "tiny-32", tmp_path).code == 0
    assert (tmp_path / "pipeline.yaml").is_file()


@pytest.mark.parametrize("name", ["tiny-16", "tiny-16-to-32", "tiny-32"])
def test_validate_says_what_the_recipe_is(command, name):
    checked = command("validate", name)
    assert checked.code == 0
    assert checked.err == ""
    assert "px" in checked.out.splitlines()[0]
    assert "M parameters and those of its classes" in checked.out.splitlines()[0]


def test_a_copied_recipe_validates_with_overrides(command, tmp_path):
    command("copy", "tiny-16", tmp_path / "mine.yaml")
    checked = command("validate", tmp_path / "mine.yaml", "space.size_px=24")
    assert checked.code == 0
    assert "noise -> 24 px" in checked.out


def test_validate_looks_at_the_data_unless_told_not_to(command, pictures, tmp_path):
    path = f"data.path={pictures}"
    checked = command("validate", "tiny-16", path, "train.batch_size=4")
    assert checked.code == 0
    assert checked.err == ""
    assert f"data:    {pictures}: 18 images, all decoded" in checked.out
    failed = command("validate", "tiny-16", path, "train.batch_size=4", "space.size_px=64")
    assert failed.code == 1
    assert failed.err.startswith("error: all 18 readable images are smaller than the stage's 64")
    missing = f"data.path={tmp_path / 'nosuch'}"
    refused = command("validate", "tiny-16", missing)
    assert refused.code == 1
    assert refused.err == (
        f"error: no data at {tmp_path / 'nosuch'}: the folder does not exist. To check the recipe "
        "alone, add --no-data.\n"
    )
    alone = command("validate", "tiny-16", missing, "--no-data")
    assert (alone.code, alone.err, alone.out.count("\n")) == (0, "", 1)


def test_doctor_lists_the_extras_of_developers_last_and_only_if_asked(command):
    subjects = [
        [line.split("\t")[0] for line in command("doctor", *option).out.splitlines()]
        for option in ([], ["--verbose"])
    ]
    short, full = ([each for each in own if each.startswith("extra")] for own in subjects)
    assert full == [f"extra [{name}]" for name in EXTRAS]
    assert full[: len(short)] == short
    assert full[len(short) :] == [f"extra [{name}]" for name in DEVELOPERS]
    assert "--verbose lists" in command("doctor").err
    assert command("doctor", "--quiet").err == command("doctor", "--verbose").err == ""


def test_doctor_says_what_is_here(command):
    outcome = command("doctor")
    assert outcome.code == 0
    rows = [line.split("\t") for line in outcome.out.splitlines()]  # unwrapped, not padded
    assert all(cell == cell.strip() for row in rows for cell in row)
    assert {"python", "torch", "device", "bf16"} <= {row[0] for row in rows}
    examples = [row[2] for row in rows if row[0] == "weights"]
    assert 'cascade generate emoji-1024 "a cat" -n 4 -o out' in examples
    assert "cascade upscale IMAGE --model photo-x4 -o large.png" in examples
    assert "cascade colourise IMAGE --model photo-colour -o coloured.png" in examples


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("file:///home/me/my%20cascade", "/home/me/my cascade"),
        ("file:///home/me/cascade_diffusion-0.1.0-py3-none-any.whl", "cascade-diffusion"),
        ("https://example.org/cascade.tar.gz", "cascade-diffusion"),
    ],
)
def test_extras_are_installed_from_where_the_package_came_from(monkeypatch, url, target):
    origin = SimpleNamespace(read_text=lambda name: json.dumps({"url": url}))
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: origin)
    assert install_command("ui") == f'pip install "{target}[ui]"'


def test_every_extra_of_the_package_is_described():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert set(EXTRAS) == set(tomllib.loads(text)["project"]["optional-dependencies"])
