from __future__ import annotations

import copy
import json
import math
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from tiny_autoencoders import IdentityAutoencoder

from cascade import __version__
from cascade.autoencoder_stage import AutoencoderStage
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, OutputError
from cascade.generation import files as generating
from cascade.generation import sheet
from cascade.generation.files import generate_files
from cascade.generation.request import Generation
from cascade.imaging.rasters.reading import read_raster
from cascade.imaging.writing import contact_sheet, to_uint8
from cascade.inspection import Inspection, inspect_picture
from cascade.pipeline import CascadePipeline
from cascade.sampling.overrides import Overrides
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space

NAMES = ["base", "upsampler"]


@pytest.fixture(scope="module")
def pipeline(trained) -> CascadePipeline:
    return CascadePipeline.from_pretrained(trained.pipeline)


def generate(
    pipeline, out: Path, *, settings: Mapping[str, Any] | None = None, callback=None, **values
) -> list[Path]:
    """Generate with 2 steps, unless the settings change that."""
    overrides = Overrides.per_stage(NAMES, NAMES, **{"steps": 2, **(settings or {})})
    generation = Generation(overrides=overrides, **values)
    return generate_files(pipeline, out, generation, name="tiny", callback=callback).pictures


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def text(path: Path) -> dict:
    with Image.open(path) as picture:
        return json.loads(picture.text["cascade"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_pictures_are_those_of_the_pipeline_and_the_grid_shows_them(pipeline, tmp_path):
    files = generate(pipeline, tmp_path / "deep" / "out", num_images=3, seed=5)
    assert files == [tmp_path / "deep" / "out" / f"{number:05d}.png" for number in range(3)]
    assert names(tmp_path / "deep" / "out") == ["00000.png", "00001.png", "00002.png", "grid.png"]
    images = pipeline(num_images=3, seed=5, steps=2, output_type="pt").images
    for path, image in zip(files, images, strict=True):
        assert np.array_equal(pixels(path), to_uint8(image).permute(1, 2, 0).numpy())
    assert np.array_equal(pixels(files[0].with_name("grid.png")), np.asarray(contact_sheet(images)))


def test_seed_labels_and_settings_stand_in_the_pngs_and_make_the_picture_again(pipeline, tmp_path):
    settings = {"sampler": "ddpm", "guidance": [1.5, 1.0], "augmentation_level": 0.2}
    settings["variance"] = "large"
    files = generate(pipeline, tmp_path, num_images=2, seed=5, settings=settings)
    for number, path in enumerate(files):
        written = text(path)
        assert set(written.pop("labels")) == {"class"}
        stages = written.pop("stages")
        made_by = {"command": "generate", "model": "tiny", "version": __version__}
        changed = ["base.sampler", "base.steps", "base.variance"]
        changed += ["upsampler.augmentation_level", "upsampler.sampler", "upsampler.steps"]
        assert sorted(written.pop("changed")) == [*changed, "upsampler.variance"]
        assert written == {**made_by, "seed": 5 + number}
        assert [stage["sampler"] for stage in stages.values()] == ["ddpm", "ddpm"]
        assert [stage["steps"] for stage in stages.values()] == [2, 2]
        assert [stage["variance"] for stage in stages.values()] == ["large", "large"]
        assert [stage["guidance"] for stage in stages.values()] == [1.5, 1.0]
        assert stages["upsampler"]["augmentation_level"] == 0.2
    assert text(tmp_path / "grid.png")["seeds"] == [5, 6]
    second = text(files[1])
    (again,) = generate(
        pipeline,
        tmp_path / "again",
        seed=second["seed"],
        classes=[second["labels"]["class"]],
        settings=settings,
    )
    difference = pixels(again).astype(int) - pixels(files[1])
    assert abs(difference).max() <= 1  # another batch size may round the other way


def test_numbers_go_on_and_nothing_is_overwritten(pipeline, tmp_path):
    generate(pipeline, tmp_path, num_images=2, seed=1)
    before = {name: (tmp_path / name).read_bytes() for name in ("00000.png", "00001.png")}
    (tmp_path / "00007.png").write_bytes(b"mine")
    (tmp_path / "photo-99.png").write_bytes(b"mine")
    (tmp_path / "cat.png").write_bytes(b"mine")
    (new,) = generate(pipeline, tmp_path, seed=9)
    assert new.name == "00008.png"
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert (tmp_path / "cat.png").read_bytes() == (tmp_path / "00007.png").read_bytes() == b"mine"


def test_classes_take_turns(pipeline, tmp_path):
    files = generate(pipeline, tmp_path, num_images=5, seed=0, classes=["red", "blue"])
    assert [text(path)["labels"]["class"] for path in files] == [
        "red",
        "blue",
        "red",
        "blue",
        "red",
    ]


def test_intermediates_are_written_beside_their_pictures(pipeline, tmp_path):
    generate(pipeline, tmp_path, num_images=2, seed=0, keep_intermediates=True)
    assert names(tmp_path) == [
        "00000.base.png",
        "00000.png",
        "00001.base.png",
        "00001.png",
        "grid.png",
    ]
    assert pixels(tmp_path / "00000.base.png").shape == (16, 16, 3)
    whole, small = text(tmp_path / "00000.png"), text(tmp_path / "00000.base.png")
    base = {"base": whole["stages"]["base"]}
    assert small == {**whole, "stop_at": "base", "stages": base, "changed": ["base.steps"]}
    (third,) = generate(pipeline, tmp_path, seed=0)
    assert third.name == "00002.png"


def test_a_series_may_stop_at_an_earlier_stage(pipeline, tmp_path):
    (small,) = generate(pipeline, tmp_path / "small", seed=3, stop_at="base")
    (whole,) = generate(pipeline, tmp_path / "whole", seed=3, keep_intermediates=True)
    assert pixels(small).tolist() == pixels(whole.with_suffix(".base.png")).tolist()
    assert text(small)["stop_at"] == "base"
    assert list(text(small)["stages"]) == ["base"]
    assert pixels(tmp_path / "small" / "grid.png").shape == (16, 16, 3)
    with pytest.raises(ContractError, match="did you mean 'base'"):
        generate(pipeline, tmp_path / "none", stop_at="bass")
    with pytest.raises(ContractError, match="only stage 'base' runs"):
        generate(pipeline, tmp_path / "none", stop_at="base", keep_intermediates=True)
    assert not (tmp_path / "none").exists()


def test_latents_between_are_named_and_not_written(tmp_path, caplog):
    decoder = AutoencoderStage.of_network(IdentityAutoencoder(), Space(size_px=8)).scaled(0, 1)
    base = DiffusionStage.build(
        Contract(decoder.latent_space),
        NoiseProcess(NoiseSchedule(train_steps=50)),
        network_options={"channels": (8,), "blocks": 1},
        sampling=SamplingSettings(steps=1, threshold="none"),
    ).eval()
    latent = CascadePipeline.from_stages({"base": base, "decoder": decoder})
    generate(latent, tmp_path, num_images=1, seed=0, keep_intermediates=True)
    assert names(tmp_path) == ["00000.png", "grid.png"]
    assert caplog.text.count("stage 'base' makes latents, which are not images, so they are") == 1


def test_a_further_series_overwrites_nothing_unless_allowed(pipeline, tmp_path):
    generate(pipeline, tmp_path, num_images=2, seed=0, keep_intermediates=True)
    (tmp_path / "00001.png").unlink()  # its intermediate still has the number
    before = {path.name: path.read_bytes() for path in tmp_path.glob("[!.]*")}
    series = generate_files(pipeline, tmp_path, Generation(seed=7), name="tiny")
    assert series.pictures == [tmp_path / "00002.png"]
    assert series.grid == tmp_path / "grid-00002.png"
    assert text(series.grid)["seeds"] == [7]
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    again = generate_files(pipeline, tmp_path, Generation(seed=7, overwrite=True), name="tiny")
    assert again.grid == tmp_path / "grid.png"
    assert pixels(tmp_path / "00000.png").tolist() == pixels(tmp_path / "00002.png").tolist()
    assert [path.name for path in tmp_path.glob(".*")] == [".cascade-generate.json"]


def test_a_sheet_whose_pictures_are_gone_is_not_overwritten(pipeline, tmp_path):
    (tmp_path / "grid-00005.png").write_bytes(b"mine")
    series = generate_files(pipeline, tmp_path, Generation(seed=0), name="tiny")
    assert series.pictures == [tmp_path / "00006.png"]
    assert series.grid == tmp_path / "grid-00006.png"
    assert (tmp_path / "grid-00005.png").read_bytes() == b"mine"


def test_a_sheet_of_somebody_or_of_pictures_that_moved_away_is_not_overwritten(pipeline, tmp_path):
    grid = tmp_path / "grid.png"
    grid.write_bytes(b"mine")
    options = {"settings": {"steps": 1}, "seed": 0, "metadata": False}
    for overwrite in (False, True, True):
        generate(pipeline, tmp_path, overwrite=overwrite, **options)
        assert names(tmp_path) == ["00000.png", "grid-00000.png", "grid.png"]
        assert grid.read_bytes() == b"mine"
    for name in ("00000.png", "grid-00000.png", "grid.png"):
        (tmp_path / name).unlink()
    generate(pipeline, tmp_path, settings={"steps": 1}, seed=7)
    (tmp_path / "00000.png").rename(tmp_path / "kept.png")
    series = generate(pipeline, tmp_path, settings={"steps": 1}, num_images=2, seed=8)
    assert [path.name for path in series] == ["00000.png", "00001.png"]
    assert text(grid)["seeds"] == [7]
    assert text(tmp_path / "grid-00000.png")["seeds"] == [8, 9]
    generate(pipeline, tmp_path, settings={"steps": 1}, overwrite=True, seed=9)
    assert text(grid)["seeds"] == [9]
    (tmp_path / "grid-00000.png").write_bytes(b"mine")
    grid.write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("[!.]*")}
    with pytest.raises(OutputError, match=r"grid-00000\.png is not a contact sheet of this comm"):
        generate(pipeline, tmp_path, settings={"steps": 1}, overwrite=True, seed=9)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("[!.]*")} == before


def test_two_processes_do_not_give_pictures_the_same_numbers(pipeline, tmp_path):
    def second(*_):
        with pytest.raises(OutputError, match="another process is generating images into"):
            generate(pipeline, tmp_path)

    generate(pipeline, tmp_path, callback=second)
    assert names(tmp_path) == ["00000.png", "grid.png"]


def test_the_callback_sees_every_step_of_every_stage(pipeline, tmp_path):
    calls = []
    generate(
        pipeline,
        tmp_path,
        settings={"steps": [2, 1]},
        num_images=3,
        seed=0,
        batch_size=2,
        callback=lambda pipe, step, t, kwargs: calls.append(
            (pipe.current_stage, step, len(kwargs["seeds"]))
        ),
    )
    assert calls == [
        *[("base", step, size) for size in (2, 1) for step in (0, 1)],
        ("upsampler", 0, 2),
        ("upsampler", 0, 1),
    ]


def test_many_pictures_are_written_while_others_are_made(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr("cascade.generation.files.PICTURES_AT_A_TIME", 2)
    monkeypatch.setattr("cascade.generation.sheet.MOST_PICTURES", 3)
    moments = []

    def look(pipe, step, t, kwargs) -> None:
        moments.append((kwargs["seeds"][0], pipe.current_stage, len(list(tmp_path.glob("0*.png")))))

    options = {"num_images": 5, "seed": 0, "classes": ["red", "blue"]}
    files = generate(pipeline, tmp_path, settings={"steps": 1}, callback=look, **options)
    assert moments == [(seed, stage, seed) for seed in (0, 2, 4) for stage in ("base", "upsampler")]
    assert [text(path)["seed"] for path in files] == [0, 1, 2, 3, 4]
    assert [text(path)["labels"]["class"] for path in files] == ["red", "blue"] * 2 + ["red"]
    grid = np.concatenate([pixels(path) for path in files[:2]], axis=1)
    whole = pixels(tmp_path / "grid.png")
    assert np.array_equal(whole[:32, [*range(32), *range(34, 66)]], grid)
    assert whole.shape == (66, 66, 3)  # three pictures
    assert text(tmp_path / "grid.png")["seeds"] == [0, 1, 2, 3, 4]


def test_an_interrupted_series_is_resumed_and_equals_one_that_was_not(
    pipeline, tmp_path, monkeypatch
):
    monkeypatch.setattr("cascade.generation.files.PICTURES_AT_A_TIME", 2)

    def stop(pipe, step, t, kwargs) -> None:
        if kwargs["seeds"][0] == 12:
            raise KeyboardInterrupt

    options = {"num_images": 5, "seed": 10, "settings": {"steps": 1}}
    generate(pipeline, tmp_path / "whole", **options)
    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        generate(pipeline, parts, callback=stop, **options)
    assert names(parts) == ["00000.png", "00001.png"]
    (parts / "00001.png").touch()
    before = (parts / "00001.png").stat().st_mtime_ns
    for _ in range(2):  # the second has nothing left to do
        generate(pipeline, parts, resume=True, **options)
    assert (parts / "00001.png").stat().st_mtime_ns == before
    assert names(parts) == names(tmp_path / "whole")
    for name in names(parts):
        assert np.array_equal(pixels(parts / name), pixels(tmp_path / "whole" / name))
    generate(pipeline, parts, **options)
    assert len(names(parts)) == 12, "without resuming, a new series follows the other"


def test_pictures_of_a_series_that_are_gone_are_made_again(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr("cascade.generation.files.PICTURES_AT_A_TIME", 2)
    monkeypatch.setattr("cascade.generation.sheet.MOST_PICTURES", 2)
    overrides = Overrides.per_stage(NAMES, NAMES, steps=1)
    asked = Generation(num_images=5, seed=3, overrides=overrides, resume=True)
    whole = generate_files(pipeline, tmp_path, asked, name="tiny")
    before = {path.name: pixels(path) for path in [*whole.pictures, whole.grid]}
    for number in (0, 3, 4):
        whole.pictures[number].unlink()
    stamp = whole.pictures[1].stat().st_mtime_ns
    counts = []
    again = generate_files(
        pipeline, tmp_path, asked, name="tiny", on_series=lambda _, earlier: counts.append(earlier)
    )
    assert (counts, again.earlier) == ([2], 2)
    assert names(tmp_path) == sorted(before)
    for name, values in before.items():
        assert np.array_equal(pixels(tmp_path / name), values)
    assert text(whole.pictures[4])["seed"] == 7
    assert whole.pictures[1].stat().st_mtime_ns == stamp


def test_pictures_without_metadata_are_numbered_and_resumed_alike(pipeline, tmp_path):
    options = {"num_images": 2, "seed": 3, "metadata": False}
    marked, first = tmp_path / "marked", tmp_path / "bare"
    generate(pipeline, marked, num_images=2, seed=3)
    paths = generate(pipeline, first, **options)
    for path in [*paths, first / "grid.png"]:
        assert inspect_picture(path) == Inspection()
        assert pixels(path).tolist() == pixels(marked / path.name).tolist()
    assert [path.name for path in generate(pipeline, first, **options)] == [
        "00002.png",
        "00003.png",
    ]
    with pytest.raises(OutputError, match="has other values of metadata; repeat its command"):
        generate(pipeline, first, resume=True, num_images=2, seed=3)
    assert len(generate(pipeline, first, resume=True, **options)) == 2
    assert len(list(first.glob("0*.png"))) == 4


def test_another_series_is_not_resumed(pipeline, tmp_path):
    options = {"num_images": 2, "settings": {"steps": 1}}
    generate(pipeline, tmp_path, resume=True, **options)
    with pytest.raises(OutputError, match="other values of num_images, seed; repeat its command"):
        generate(pipeline, tmp_path, resume=True, seed=3, **{**options, "num_images": 3})
    (tmp_path / ".cascade-generate.json").write_text("[]")
    with pytest.raises(OutputError, match="is damaged; delete it"):
        generate(pipeline, tmp_path, resume=True, **options)


def test_a_series_is_not_resumed_with_other_weights_or_defaults(pipeline, tmp_path):
    options = {"num_images": 1, "seed": 0}
    generate(pipeline, tmp_path, **options)
    network = copy.deepcopy(pipeline.stages["base"])
    with torch.no_grad():
        next(network.parameters()).add_(1)
    other = CascadePipeline(pipeline.stages.replaced("base", network))
    with pytest.raises(OutputError, match=r"has other values of weights; repeat its command"):
        generate(other, tmp_path, resume=True, **options)
    changed = pipeline.with_sampling(eta=0.5)
    with pytest.raises(OutputError, match=r"has other values of settings; repeat its command"):
        generate(changed, tmp_path, resume=True, **options)
    generate(pipeline, tmp_path, resume=True, stop_at=None, **options)
    assert names(tmp_path) == ["00000.png", "grid.png"]


@pytest.mark.parametrize(
    "values",
    [
        {"classes": ["red", "redd"]},
        {"overrides": Overrides({"all": {"steps": 0}})},
        {"overrides": Overrides({"all": {"keep_colours": 3}})},
        {"prompts": ["a cat"]},
        {"negative_prompt": "a cat"},
        {"stop_at": "bass"},
    ],
)
def test_a_mistake_changes_nothing_in_a_folder_of_an_earlier_series(pipeline, tmp_path, values):
    out = tmp_path / "out"
    generate(pipeline, out, num_images=2, seed=0)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for further in ({}, {"overwrite": True}):
        wrong = Generation(num_images=2, **values, **further)
        with pytest.raises(ContractError):
            generate_files(pipeline, out, wrong, name="tiny")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(ContractError):
        generate_files(pipeline, tmp_path / "new", Generation(num_images=2, **values), name="tiny")
    assert not (tmp_path / "new").exists()


def test_an_error_while_drawing_changes_nothing_in_the_folder(pipeline, tmp_path):
    def fail(*_):
        raise OutputError("stopped")

    generate(pipeline, tmp_path, num_images=2, seed=0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for further in ({}, {"overwrite": True}):
        with pytest.raises(OutputError, match="stopped"):
            generate(pipeline, tmp_path, num_images=3, callback=fail, **further)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_choices_that_contradict_each_other_are_refused():
    with pytest.raises(ContractError, match="overwrite begins a new series and resume completes"):
        Generation(overwrite=True, resume=True)
    with pytest.raises(
        ContractError, match="3 classes cannot alternate over 2 images; generate mo"
    ):
        Generation(num_images=2, classes=["red", "blue", "red"])
    Generation(num_images=1, prompts=["a", "b", "c"], classes=["red", "blue", "red"])


def test_the_sheet_of_many_pictures_holds_small_copies(monkeypatch):
    monkeypatch.setattr(sheet, "MOST_PX", 48)
    for total, side, count in ((4, 23, 4), (9, 14, 9), (100, 4, 64)):
        whole = sheet.SeriesSheet(total, Space(size_px=32))
        for first in range(0, total, 3):
            whole.add(torch.full((min(3, total - first), 3, 32, 32), first / 100))
        columns = math.ceil(math.sqrt(count))
        assert whole.count == count
        assert whole.picture().size == (columns * (side + 2) - 2,) * 2
        assert whole.picture().width <= sheet.MOST_PX


def test_pictures_are_let_go_when_they_are_written(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(generating, "PICTURES_AT_A_TIME", 1)
    plain, results = generating._generate, []

    def generate_alone(*arguments):
        assert [each() for each in results] == [None] * len(results)
        result = plain(*arguments)
        results.append(weakref.ref(result.images))
        return result

    monkeypatch.setattr(generating, "_generate", generate_alone)
    generate(pipeline, tmp_path, settings={"steps": 1}, num_images=3, seed=0)
    assert len(results) == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"classes": ["redd"]}, "unknown class 'redd': did you mean 'red'"),
        ({"overrides": Overrides({"all": {"steps": 0}})}, "steps must be at least 1, got 0"),
        ({"overrides": Overrides({"bsae": {"steps": 1}})}, "no stage 'bsae'.* 'base'"),
        ({"overrides": Overrides({"all": {"et": 1}})}, "unknown sampling setting 'et'.* 'eta'"),
    ],
)
def test_what_cannot_be_generated_is_one_clear_line_and_no_picture(
    pipeline, tmp_path, values, words
):
    with pytest.raises(ContractError, match=words) as error:
        generate_files(pipeline, tmp_path / "out", Generation(**values), name="tiny")
    assert "\n" not in str(error.value)
    assert list(tmp_path.rglob("*.png")) == []


def test_a_bad_folder_is_refused(pipeline, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write to folder"):
        generate(pipeline, tmp_path / "file")


# ---- bands --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "dtype"),
    [
        ((0, 10_000), "uint16"),
        (((0, 200), (0, 250)), "uint8"),
        ((-1000, 3000), "int16"),
        ((0, 1), "float32"),
        ((-1000, 40_000), "float32"),
    ],
)
def test_bands_are_written_as_tiff_in_the_smallest_type_that_holds_their_range(
    tmp_path, ends, dtype
):
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        Contract(Space(size_px=8, channels=2, range=ends, show=(2,), colour_map="viridis")),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1},
        sampling=SamplingSettings(steps=1),
        embedding_dim=16,
    )
    pipeline = CascadePipeline.from_stages({"base": stage})
    images = pipeline(num_images=2, seed=5, output_type="pt").images
    for first in (0, 2):
        written = generate_files(pipeline, tmp_path, Generation(num_images=2, seed=5), name="b")
        assert [file.name for file in written.pictures] == [f"{first + n:05d}.tif" for n in (0, 1)]
    raster = read_raster(written.pictures[1])
    assert raster.values.dtype == dtype
    inspection = inspect_picture(written.pictures[1])
    assert (inspection.record.command, inspection.record.seed) == ("generate", 6)
    assert inspection.source_type == "trainedAlgorithmicMedia"
    with tifffile.TiffFile(written.pictures[1]) as file:
        assert b"trainedAlgorithmicMedia" in file.pages[0].tags[700].value
    expected = stage.space.from_unit(images[1]).numpy()
    assert np.abs(raster.values - expected).max() <= (0.51 if dtype != "float32" else 0.01)
    with Image.open(written.grid) as grid:
        assert grid.height > 8
    again = Generation(num_images=2, seed=5, overwrite=True)
    generate_files(pipeline, tmp_path, again, name="b")
    assert len(list(tmp_path.glob("*.tif"))) == 4
    (tmp_path / "00000.base.tif").write_bytes(written.pictures[1].read_bytes())  # of another run
    (tmp_path / "00001.base.tif").write_bytes(b"somebody's")
    generate_files(pipeline, tmp_path, again, name="b")
    assert not (tmp_path / "00000.base.tif").exists()
    assert (tmp_path / "00001.base.tif").exists()
    bare = Generation(num_images=2, seed=5, metadata=False)
    folder = tmp_path / "bare"
    for file in generate_files(pipeline, folder, bare, name="b").pictures:
        assert inspect_picture(file) == Inspection()
        assert np.array_equal(read_raster(file).values, read_raster(tmp_path / file.name).values)
