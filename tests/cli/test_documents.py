"""The option `--json`: one document on the standard output, whatever happens."""

from __future__ import annotations

import json
import math

import pytest

import cascade.diagnosis
from cascade.cli.defaults import FILE
from cascade.cli.documents import print_document
from cascade.cli.main import _verbs
from cascade.extras import EXTRAS
from cascade.recipe.finding import list_recipes, recipe_name
from cascade.recipe.reading import load_any_recipe

HAVE_JSON = {"generate", "evaluate", "inspect", "ls", "show", "doctor"}


def test_these_commands_have_it():
    assert {name for name, verb in _verbs().items() if "--json" in verb.options()} == HAVE_JSON


def test_recipes_are_listed_with_their_weights(command):
    done = command("ls", "--json")
    (recipes,) = json.loads(done.out).values()
    assert [set(each) for each in recipes] == [
        {"kind", "name", "has_weights", "description"}
    ] * len(recipes)
    names = [recipe_name(path) for kind in ("pipelines", "stages") for path in list_recipes(kind)]
    assert [each["name"] for each in recipes] == names
    has_weights = {each["name"] for each in recipes if each["has_weights"]}
    assert "photo-x4" in has_weights
    assert "tiny-32" not in has_weights


def test_a_recipe_is_shown_with_its_changes(command):
    done = command("show", "tiny-16", "train.batch_size=7", "--json")
    recipe = load_any_recipe("tiny-16", ["train.batch_size=7"])
    assert json.loads(done.out) == recipe.model_dump(mode="json")


def test_the_diagnosis_has_a_finding_per_line(command):
    (findings,) = json.loads(command("doctor", "--json").out).values()
    assert all(set(each) == {"subject", "value", "meaning"} for each in findings)
    assert {f"extra [{name}]" for name in EXTRAS} < {each["subject"] for each in findings}


def test_generated_files_are_listed_with_their_seeds(command, trained, tmp_path):
    line = ["generate", trained.pipeline, "--steps", 1, "-n", 2, "--seed", 7, "-o", tmp_path]
    done = command(*line, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {
        "pipeline": str(trained.pipeline),
        "images": [
            {"file": str(tmp_path / f"0000{number}.png"), "seed": 7 + number, "prompt": ""}
            for number in range(2)
        ],
        "grid": str(tmp_path / "grid.png"),
        "index": None,
        "earlier": 0,
    }


def test_pictures_are_inspected(command, trained, tmp_path):
    command("generate", trained.pipeline, "--steps", 1, "--seed", 3, "-o", tmp_path)
    done = command("inspect", tmp_path / "00000.png", tmp_path / "grid.png", "--json")
    first, grid = json.loads(done.out)["images"]
    assert set(first) == {"file", "mark", "command", "notes", "record"}
    assert first["record"]["seed"] == 3
    assert grid["file"] == str(tmp_path / "grid.png")


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("show nosuch", 2, "nosuch"),
        ("show tiny-16 nosuch=1", 2, "unknown key"),
        ("generate nosuch-pipeline -o out", 1, "nosuch-pipeline"),
        ("generate tiny-32 -o out -n many", 2, "Invalid value for '--num-images'"),
        ("generate tiny-32 -o out --steps many", 2, "--steps takes numbers such as 50"),
        ("generate tiny-32", 2, "Missing option '--out'"),
        ("ls --nosuch", 2, "No such option: --nosuch"),
        ("generate tiny-32 --output out", 2, "--output is called --out here."),
        ("ls -q -v", 2, "--quiet and --verbose exclude each other."),
        ("inspect nosuch.png", 1, "nosuch.png"),
    ],
)
def test_an_error_is_a_document_with_the_same_code(
    command, tmp_path, monkeypatch, line, code, message
):
    monkeypatch.chdir(tmp_path)
    done, plain = command(*line.split(), "--json"), command(*line.split())
    assert done.code == plain.code == code
    assert plain.out == ""
    assert done.err == plain.err
    document = json.loads(done.out)
    assert set(document) == {"error"}
    assert message in document["error"]


def test_a_fault_of_the_file_of_defaults_is_a_document(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE).write_text("nosuch: 1")
    done = command("ls", "--json")
    assert done.code == 2
    assert "nosuch" in json.loads(done.out)["error"]


def test_an_error_of_the_system_is_the_same_text_in_both(command, monkeypatch):
    def full():
        raise OSError(28, "No space left on device", "scores.json")

    monkeypatch.setattr(cascade.diagnosis, "diagnose", full)
    done = command("doctor", "--json")
    assert done.code == 1
    assert json.loads(done.out) == {"error": "scores.json: No space left on device."}
    assert done.err == "cascade: scores.json: No space left on device.\n"


def test_a_command_without_the_option_prints_no_document(command):
    done = command("validate", "tiny-16", "--json")
    assert (done.code, done.out) == (2, "")


# ---- what is printed ----------------------------------------------------------------------------


def test_whatever_prints_meanwhile_goes_to_the_error_output(command, monkeypatch):
    plain = cascade.diagnosis.diagnose

    def chatty():
        print("Setting up")
        return plain()

    monkeypatch.setattr(cascade.diagnosis, "diagnose", chatty)
    done = command("doctor", "--json")
    assert done.err == "Setting up\n"
    assert json.loads(done.out)["findings"]


def test_numbers_that_json_lacks_are_null(capsys):
    print_document(lambda: {"a": (math.nan, math.inf, 1.5), "b": {1: True, "ä": None}})
    text = capsys.readouterr().out
    assert json.loads(text) == {"a": [None, None, 1.5], "b": {"1": True, "ä": None}}
    assert text.isascii()


def test_the_file_of_defaults_can_ask_for_it(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE).write_text("ls:\n  json: true\n")
    assert json.loads(command("ls", "-q").out)["recipes"]
