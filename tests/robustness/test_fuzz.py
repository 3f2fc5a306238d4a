"""Whatever is wrong with what a user gives, the answer is a result or one clear line.

Each case damages one thing that is in order, and runs a command on it in this process. The doors
are recipes, overrides, pictures, files of measured numbers, manifests (tables of labels),
checkpoints, prompts and the records in pictures.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from damage import NUMERALS, SCALARS, WORDS, damaged_bytes, damaged_tree, with_checksums
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cascade.imaging.picture_reading import read_picture
from cascade.imaging.rasters.reading import read_raster
from cascade.recipe.finding import find_recipe, list_recipes
from cascade.recipe.reading import load_stage_recipe
from cascade.sampling.settings import SamplingSettings
from cascade.saving.components import read_json
from cascade.saving.differences import flat

FEW, MANY = 9, 180  # cases of each door
LONGEST_S = 60.0
MOST_LINES = 8  # of errors and notes; a wrong usage has four
PICTURE = "alpha.png"
Run = Callable[..., Any]


class Cases:
    """Runs commands in a folder of their own, and checks how each ends."""

    def __init__(self, command: Run, sound: Any, folder: Path, caplog: Any) -> None:
        self.command = command
        self.log = caplog
        self.sound = sound
        self.folder = folder
        self.out = folder / "out"
        self.counts: Counter[str] = Counter()

    def clear(self) -> None:
        """Begin a case with an empty folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()

    def copy(self, folder: Path) -> Path:
        """A copy of a folder, to be damaged."""
        return Path(shutil.copytree(folder, self.folder / folder.name))

    def run(self, *arguments: object, reads: Run = read_picture) -> None:
        """Run a command, and check that it ends with a result or one clear line."""
        start = time.monotonic()
        done = self.command(*arguments)
        assert time.monotonic() - start < LONGEST_S
        told = done.out + done.err + self.log.text
        self.log.clear()
        assert "Traceback" not in told
        assert not re.search(r"unexpected \w+:", told)  # an error that bulk work does not know
        assert done.code in (0, 1, 2)
        assert done.code == 0 or done.err.strip(), "no word about the failure"
        assert len(done.err.splitlines()) <= MOST_LINES
        self.counts["refusals" if done.code else "results"] += 1
        self._check_files(reads)

    def _check_files(self, reads: Run) -> None:
        """Check that whatever was written is whole."""
        for path in self.out.rglob("*") if self.out.is_dir() else ():
            if path.is_dir() or path.suffix in (".lock", ".html"):
                continue
            assert path.suffix not in (".tmp", ".old"), f"{path.name} is left over"
            if path.suffix == ".json":
                read_json(path)
            elif path.suffix == ".jsonl":
                for line in path.read_bytes().splitlines():
                    json.loads(line)
            else:
                reads(path)


# ---- the doors ----------------------------------------------------------------------------------

RECIPES = [*list_recipes("stages"), *list_recipes("pipelines")]


def recipe(cases: Cases, draw: Run) -> None:
    """A recipe with damaged bytes, or with values that are lost, renamed or of another kind."""
    source = draw(st.sampled_from(RECIPES))
    file = cases.folder / "recipe.yaml"
    if draw(st.booleans()):
        file.write_bytes(draw(damaged_bytes(source.read_bytes())))
    else:
        tree = OmegaConf.to_container(OmegaConf.load(source))
        file.write_text(json.dumps(draw(damaged_tree(tree))))
    cases.run("validate", file, "--no-data")


RECIPE = flat(load_stage_recipe(find_recipe("tiny-16-to-32", "stages")).model_dump())
SETTINGS = [field.name for field in fields(SamplingSettings)]


def override(cases: Cases, draw: Run) -> None:
    """An override of a recipe, or of the sampling settings of a command."""
    is_recipe = draw(st.booleans())
    names = sorted(RECIPE) if is_recipe else SETTINGS
    name = draw(st.one_of(st.sampled_from(names), st.sampled_from(names), WORDS))
    value = draw(st.one_of(NUMERALS, NUMERALS, SCALARS, st.lists(SCALARS, max_size=3)))
    text = f"{name}={value}".replace("\0", "")
    if is_recipe:
        cases.run("validate", "tiny-16-to-32", text, "--no-data")
        return
    stage = draw(st.sampled_from(["", "", "upsampler.", "base."]))
    cases.run(*upscaling(cases, PICTURE), "--set", f"{stage}{text}")


def upscaling(cases: Cases, name: str, data: bytes | None = None, model: Any = None) -> list[Any]:
    """The command that upscales a picture."""
    file = cases.folder / name
    file.write_bytes(cases.sound.pictures[name] if data is None else data)
    model = model or cases.sound.upscaler
    return ["upscale", file, "-o", cases.out, "--model", model, "--steps", 1, "--device", "cpu"]


def picture(cases: Cases, draw: Run) -> None:
    """A picture with damaged bytes, of any format, upscaled and inspected."""
    name, data = draw(st.sampled_from(sorted(cases.sound.pictures.items())))
    damaged = draw(damaged_bytes(data))
    if name.endswith(".png") and draw(st.booleans()):
        damaged = with_checksums(damaged)
    options = [each for each in ("--compare", "--no-metadata") if draw(st.booleans())]
    cases.run(*upscaling(cases, name, damaged), *options)
    cases.run("inspect", cases.folder / name)


def numbers(cases: Cases, draw: Run) -> None:
    """A marked file of measured numbers, damaged: upscaled by a model of bands and inspected."""
    name, data = draw(st.sampled_from(sorted(cases.sound.numbers.items())))
    damaged = draw(damaged_bytes(gzip.decompress(data) if name.endswith(".gz") else data))
    if name.endswith(".gz"):  # what is packed is damaged, or the packed file
        damaged = draw(st.sampled_from([gzip.compress(damaged), draw(damaged_bytes(data))]))
    cases.run(*upscaling(cases, name, damaged, cases.sound.doubler), reads=read_raster)
    cases.run("inspect", cases.folder / name, reads=read_raster)


RECORDS = [
    {"command": "upscale", "model": "x2", "model_is_folder": True, "seed": 3, "scale": 2.0,
     "stages": {"upsampler": {"steps": 1, "guidance_interval": [0.1, 3.0]}}, "range": [0, 200],
     "adapters": [["cats", 0.5]], "input_sha256": "0" * 64, "size_px": [28, 40]},
    {"command": "edit", "model": "tiny", "seed": 1, "labels": "cat", "strength": 0.5,
     "uncrop": [1, 2, 3, 4], "prompt": "a cat", "seeds": 2, "mask_sha256": None},
    {"command": "generate", "model": "tiny", "seed": 1, "labels": {"animal": "cat"}},
]  # fmt: skip


def record(cases: Cases, draw: Run) -> None:
    """The record in a picture, damaged in its values: inspected, and taken for a result."""
    text, tree = PngInfo(), draw(damaged_tree(draw(st.sampled_from(RECORDS))))
    text.add_text("cascade", json.dumps(tree))
    file = cases.folder / "a.png"
    Image.new("RGB", (40, 28)).save(file, pnginfo=text)
    cases.run("inspect", file, *(["--json"] if draw(st.booleans()) else []))
    cases.out.mkdir()
    shutil.copy(file, cases.out / PICTURE)
    cases.run(*upscaling(cases, PICTURE))


ROWS = [
    {"file_name": f"{number}.png", "class": "cat", "caption": "a cat, sitting", "size": number}
    for number in range(3)
]


def manifest(cases: Cases, draw: Run) -> None:
    """A table of labels beside pictures, damaged as bytes or in its values."""
    images = cases.folder / "images"
    images.mkdir()
    for row in ROWS:
        (images / row["file_name"]).write_bytes(cases.sound.pictures["palette.png"])
    kind = draw(st.sampled_from(["csv", "jsonl", "json"]))
    rows = ROWS if draw(st.booleans()) else draw(damaged_tree(ROWS))
    if kind == "csv":
        lines = [",".join(map(str, row)) for row in ([*ROWS[0]], *(row.values() for row in ROWS))]
        text = "\n".join(lines)
    else:
        text = "\n".join(map(json.dumps, rows if isinstance(rows, list) else [rows]))
    data = text.encode("utf-8", "surrogatepass")
    data = data if rows is not ROWS and kind != "csv" else draw(damaged_bytes(data))
    (images / ("0.json" if kind == "json" else f"metadata.{kind}")).write_bytes(data)
    cases.run("data", "check", images)


def checkpoint(cases: Cases, draw: Run) -> None:
    """A saved pipeline, or the checkpoint of a run, in which one file is damaged."""
    is_run = draw(st.booleans())
    folder = cases.copy(cases.sound.run if is_run else cases.sound.upscaler)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = draw(st.sampled_from(files))
    trees = file.suffix == ".json" and draw(st.booleans())
    if trees:
        file.write_text(json.dumps(draw(damaged_tree(json.loads(file.read_text())))))
    else:
        file.write_bytes(draw(damaged_bytes(file.read_bytes())))
    if is_run:
        cases.run(*cases.sound.command, "train.images=24", "--out", folder)
    else:
        cases.run(*upscaling(cases, PICTURE, model=folder))


def prompt(cases: Cases, draw: Run) -> None:
    """Prompts of any characters, in the command line or in a file, with what goes with them."""
    words = WORDS.map(lambda text: text.replace("\0", ""))
    arguments = ["generate", cases.sound.writer, "-o", cases.out, "--steps", 1, "--device", "cpu"]
    if draw(st.booleans()):
        file = cases.folder / "prompts.txt"
        lines = b"a cat\n\nwith hearts\n"
        file.write_bytes(draw(st.one_of(st.binary(max_size=20), damaged_bytes(lines))))
        arguments += ["--prompts", file]
    else:
        arguments += ["--prompt", draw(words)]
    for option in ("--negative", "--class", "--guidance", "--seed"):
        if draw(st.integers(0, 3)) == 0:
            value = draw(st.one_of(words, NUMERALS, st.sampled_from(["cat", "dog,noto", "cat,"])))
            arguments += [option, value]
    cases.run(*arguments)


DOORS = {
    "recipes": recipe, "overrides": override, "pictures": picture, "numbers": numbers,
    "records": record, "manifests": manifest, "checkpoints": checkpoint, "prompts": prompt,
}  # fmt: skip


# ---- the tests ----------------------------------------------------------------------------------


@pytest.fixture
def explore(command, sound, tmp_path, monkeypatch, record_property, caplog):
    """A function that tries a number of cases of a door."""
    cases = Cases(command, sound, tmp_path / "case", caplog)
    monkeypatch.chdir(tmp_path)

    def try_cases(door: str, count: int) -> None:
        @settings(
            max_examples=count,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # making a case smaller takes longer than reading it
        )
        @given(st.data())
        def one_case(data: st.DataObject) -> None:
            cases.clear()
            DOORS[door](cases, data.draw)
            cases.counts["cases"] += 1

        one_case()
        for name in ("cases", "results", "refusals"):  # of the commands; a case may run several
            record_property(name, cases.counts[name])

    return try_cases


@pytest.mark.parametrize("door", DOORS)
def test_a_few_damaged_inputs_are_answered(explore, door):
    explore(door, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_many_damaged_inputs_are_answered(explore, door):
    explore(door, MANY)
