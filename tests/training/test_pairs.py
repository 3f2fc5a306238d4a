"""Training, measuring and using stages of pairs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cascade.building.data_preview import preview_data
from cascade.building.pipelines import check_recipe
from cascade.building.training import build_trainer
from cascade.conditioning.paired_image import PairedImage
from cascade.contract import Contract
from cascade.data.training_images import epoch_order
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import CascadeError
from cascade.evaluation.evaluate import evaluate
from cascade.imaging.picture import Picture
from cascade.imaging.rasters.reading import read_raster
from cascade.pipeline import CascadePipeline
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.restoration.upscaling import Upscaling
from cascade.stage_kinds import load_stage
from cascade.sweeping.sweep import sweep

TINY = find_recipe("tiny-16", "stages")
SMALL = [
    "condition.labels=null",
    "sampling={steps: 2, guidance: 1}",
    "network={kind: transformer, patch_size: 4, width: 16, depth: 1, fine_width: 8, fine_depth: 1}",
    "network.head_channels=8",
    "train={images: 16, batch_size: 4, checkpoint_every_images: 8, warmup_images: 4}",
    "train.sample_every_images=16",
    "train.sample_count=2",
    "train.trackers=[]",
    "train.precision=fp32",
    "train.schedule=constant",
]
RESTORE = ["condition.paired_image={}", "data.crop_px=8"]
ENLARGE = ["condition.low_resolution={size_px: 8}", "space.size_px=16"]


def recipe_of(folder: Path, *overrides: str, inputs: str = "damaged"):
    where = [f"data.path={folder / 'clean'}", f"data.pairs={folder / inputs}"]
    return load_stage_recipe(TINY, [*SMALL, *where, *overrides])


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Six clean pictures of 20 x 24 px, damaged ones, and small ones by a kernel of their own."""
    folder = tmp_path_factory.mktemp("scans")
    for name in ("clean", "damaged", "small"):
        (folder / name).mkdir()
    for number in range(6):
        draw = np.random.default_rng(number)
        small = draw.integers(60, 200, (10, 12, 3), np.uint8)
        clean = np.asarray(Image.fromarray(small).resize((24, 20), Image.Resampling.BICUBIC))
        Image.fromarray(clean).save(folder / "clean" / f"{number}.png")
        damaged = (clean * [0.9, 0.7, 0.5] + draw.normal(20, 5, clean.shape)).clip(0, 255)
        Image.fromarray(damaged.astype(np.uint8)).save(folder / "damaged" / f"{number}.png")
        Image.fromarray(small).save(folder / "small" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def runs(scans, tmp_path_factory) -> dict[str, Path]:
    """The runs of a restorer and of an upsampler on pairs."""
    folder = tmp_path_factory.mktemp("runs")
    build_trainer(recipe_of(scans, *RESTORE), folder / "restore").run()
    build_trainer(recipe_of(scans, *ENLARGE, inputs="small"), folder / "enlarge").run()
    return {name: folder / name for name in ("restore", "enlarge")}


# ---- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_share", [True, False])
def test_held_out_pairs_are_measured_with_their_own_inputs(scans, tmp_path, is_share):
    values = ["data.validation=0.3", "train.batch_size=2"]
    if not is_share:
        for name in ("clean", "damaged"):
            shutil.copytree(scans / name, tmp_path / name)
            for file in (tmp_path / name).iterdir():
                picture = Image.open(file).transpose(Image.Transpose.ROTATE_180)
                file.unlink()
                picture.save(file.with_stem(f"new-{file.stem}"))
        values = [f"data.validation={tmp_path / 'clean'}"]
        values.append(f"data.validation_pairs={tmp_path / 'damaged'}")
    trainer = build_trainer(recipe_of(scans, *RESTORE, *values), tmp_path / "run")
    assert trainer.validation is not None
    own = trainer.validation.images[0].conditions["paired_image"]
    source = trainer.validation.images.source
    assert source.partners is not None
    assert own.shape == (3, 8, 8)
    assert len(source) + len(trainer.images.source) == (6 if is_share else 12)
    trainer.run()
    assert '"psnr"' in (tmp_path / "run" / "log.jsonl").read_text()


def test_inputs_of_held_out_pairs_need_held_out_images():
    with pytest.raises(CascadeError, match=r"needs data\.pairs, and a folder or shards"):
        load_stage_recipe(TINY, ["data.validation_pairs=x", "data.validation=0.1"])


def test_sheets_show_input_result_and_truth(runs):
    about = json.loads((runs["restore"] / "about.json").read_text())
    assert about["grid"] == ["image", "sample", "truth"]
    assert (runs["restore"] / "samples" / "000000000016.png").is_file()


def test_consistency_is_neither_measured_nor_on_by_default(runs):
    stage = load_stage(runs["enlarge"] / "stage")
    condition = stage.contract.condition("low_resolution")
    assert condition is not None
    assert condition.config()["paired"]
    assert stage.contract.needs_partner
    assert not Upscaling().is_consistent([stage])
    lines = [json.loads(line) for line in (runs["enlarge"] / "log.jsonl").read_text().splitlines()]
    assert not any("low_res_consistency" in line for line in lines)


def test_a_resumed_run_ends_bit_for_bit_as_one_without_a_gap(scans, runs, tmp_path):
    first = build_trainer(recipe_of(scans, *RESTORE, "train.images=8"), tmp_path / "run")
    first.run()
    build_trainer(recipe_of(scans, *RESTORE), tmp_path / "run").run()
    for part in ("stage", "ema", "optimisers"):
        name = f"checkpoints/000000000016/{part}.safetensors"
        once, twice = (load_file(folder / name) for folder in (runs["restore"], tmp_path / "run"))
        assert once.keys() == twice.keys()
        assert all(once[key].equal(twice[key]) for key in once)


def test_a_run_does_not_resume_with_other_partners(scans, tmp_path):
    shutil.copytree(scans, tmp_path / "scans")
    recipe = recipe_of(tmp_path / "scans", *RESTORE)
    build_trainer(recipe, tmp_path / "run").run()
    (tmp_path / "scans" / "damaged" / "3.png").unlink()
    with pytest.raises(CascadeError, match=r"1 with other partners \(3\)"):
        build_trainer(recipe, tmp_path / "run")


def test_changed_partners_are_named_when_a_run_goes_on(scans, tmp_path, caplog):
    shutil.copytree(scans, tmp_path / "scans")
    build_trainer(recipe_of(tmp_path / "scans", *RESTORE), tmp_path / "run").run()
    Image.new("RGB", (24, 20)).save(tmp_path / "scans" / "damaged" / "3.png")
    caplog.set_level("WARNING", logger="cascade")
    build_trainer(recipe_of(tmp_path / "scans", *RESTORE, "train.images=24"), tmp_path / "run")
    assert "1 of the images changed since the run began (3)" in caplog.text


def held_out_losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line.get("kind") == "validation"]


def test_the_held_out_loss_is_that_of_pairs(scans, tmp_path):
    """A set of its own with inputs of its own, and a share of the pairs."""
    own = [f"data.validation={scans / 'clean'}", f"data.validation_pairs={scans / 'damaged'}"]
    for name, overrides in (("own", own), ("share", ["data.validation=0.4"])):
        often = ["train.validate_every_images=16", "train.batch_size=2"]
        if name == "own":
            for part in ("clean", "damaged"):
                shutil.copytree(scans / part, tmp_path / part)
                (tmp_path / part / "5.png").unlink()
        folder = tmp_path if name == "own" else scans
        build_trainer(recipe_of(folder, *RESTORE, *often, *overrides), tmp_path / name).run()
        assert held_out_losses(tmp_path / name)
    with pytest.raises(CascadeError, match="name its inputs too"):
        build_trainer(recipe_of(tmp_path, *RESTORE, own[0]), tmp_path / "other")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([*RESTORE, "data.pairs=null"], "condition.paired_image needs data.pairs"),
        ([], "data.pairs needs a condition that takes their inputs"),
        ([*RESTORE, "data.too_small=enlarge"], "images of pairs are not resized"),
        (
            ["condition.low_resolution={size_px: 8, generated: {fraction: 0.5}}"],
            "condition.low_resolution.generated makes low-resolution images",
        ),
        (
            ["condition.low_resolution={size_px: 8, degradation: {blur: {sigma: [1, 2]}}}"],
            "those of pairs are files; leave the degradation out",
        ),
        (
            [*RESTORE, "condition.paired_image.channels=1", "diffusion.residual_std=0.2"],
            "resembles the result",
        ),
    ],
)
def test_recipes_that_do_not_fit_are_refused_in_one_line(scans, overrides, words):
    with pytest.raises(CascadeError, match=re.escape(words)) as error:
        check_recipe(recipe_of(scans, *overrides))
    assert "\n" not in str(error.value)


def test_validate_looks_at_the_pairs(scans):
    facts = preview_data(recipe_of(scans, *RESTORE)).facts
    assert any(line.split() == ["pairs:", "6", "of", "scale", "1"] for line in facts)
    findings = preview_data(recipe_of(scans, *RESTORE, inputs="small"))
    assert "broken images: 6 of 6" in findings.errors[0]
    assert "is 2 times as large as its partner" in findings.errors[0]


# ---- using the stage ----------------------------------------------------------------------------


def test_restore_works_on_the_input_alone_at_any_size(runs):
    pipeline = CascadePipeline.from_pretrained(runs["restore"])
    image = torch.rand(3, 21, 35, generator=torch.Generator().manual_seed(0)) * 2 - 1
    result = pipeline.restore(image, seed=3)
    assert result.shape == image.shape
    assert pipeline.restore(image, seed=3).equal(result)
    assert not pipeline.restore(image, seed=4).equal(result)
    picture = Picture(colour=torch.randint(0, 256, (3, 9, 13)).byte(), bits=8)
    assert pipeline.restore(picture).size == (9, 13)
    with pytest.raises(CascadeError, match="no upsampler"):
        pipeline.upscale(image)
    with pytest.raises(CascadeError, match="no stage that takes greyscale"):
        pipeline.colourise(image)


def test_an_upsampler_of_pairs_keeps_no_area_neutral(runs, monkeypatch):
    """Real pairs may differ in colour, so a grey input need not give a grey result."""
    pipeline = CascadePipeline.from_pretrained(runs["enlarge"])
    grey = torch.zeros(3, 8, 8)
    result = pipeline.upscale(grey, precision="fp32")
    assert not result[0].equal(result[1])
    picture = Picture(colour=torch.full((1, 8, 8), 128).byte(), bits=8)
    coloured = Picture(colour=picture.colour.expand(3, -1, -1), bits=8)
    drawn = pipeline.upscale(picture, precision="fp32")
    assert drawn.colour.equal(pipeline.upscale(coloured, precision="fp32").colour)
    assert pipeline.upscale(grey[:1], precision="fp32").equal(result)


@pytest.mark.parametrize(
    ("model", "words", "expected"),
    [
        (
            "pairs",
            ["--grow", 3, "--window", 64],
            "as it learned from pairs; leave out grow and window.",
        ),
        ("emoji-1024", ["--tile", 64], "emoji-1024 repairs the masked area; leave out tile."),
    ],
)
def test_options_that_a_model_does_not_read_are_refused(
    command, runs, scans, tmp_path, model, words, expected
):
    place = runs["restore"] if model == "pairs" else model
    done = command("restore", scans / "damaged", "--model", place, "-o", tmp_path / "out", *words)
    assert done.code == 1
    assert expected in " ".join(done.err.split())


def test_the_command_restores_a_folder(command, scans, runs, tmp_path):
    done = command("restore", scans / "damaged", "--model", runs["restore"], "-o", tmp_path / "out")
    assert done.code == 0, done.err
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names == [f"{number}.png" for number in range(6)]
    with Image.open(tmp_path / "out" / "0.png") as image:
        assert image.size == (24, 20)


def test_bands_become_other_bands(scans, tmp_path, command, extractor):
    """One band of 12 bits becomes two of other ranges, as TIFF."""
    for number in range(4):
        values = np.random.default_rng(number).integers(0, 4096, (1, 18, 16)).astype(np.uint16)
        for name, array in (
            ("clean", np.concatenate([values * 2, values // 16])),
            ("damaged", values),
        ):
            (tmp_path / name).mkdir(exist_ok=True)
            np.save(tmp_path / name / f"{number}.npy", array)
    overrides = [
        "space.channels=2",
        "data.range=[[0,8190],[0,255]]",
        "condition.paired_image={channels: 1, range: [0, 4095]}",
    ]
    build_trainer(recipe_of(tmp_path, *overrides), tmp_path / "run").run()
    done = command(
        "restore", tmp_path / "damaged" / "0.npy", "--model", tmp_path / "run",
        "-o", tmp_path / "out.tif",
    )  # fmt: skip
    assert done.code == 0, done.err
    result = read_raster(tmp_path / "out.tif")
    assert result.values.shape == (2, 18, 16)
    assert result.values.dtype == np.uint16
    evaluation = evaluate(
        CascadePipeline.from_pretrained(tmp_path / "run"),
        tmp_path / "clean",
        pairs=str(tmp_path / "damaged"),
        extractor=extractor,
        cache_dir=tmp_path / "cache",
        num_images=2,
    )
    names = {score.name for score in evaluation.whole.scores}
    assert {"PSNR, dB, band 1", "PSNR, dB, band 2"} <= names
    assert evaluation.whole.input.endswith("an image of 1 band, 16 px")


# ---- evaluation ---------------------------------------------------------------------------------


def test_evaluation_gives_the_stage_the_real_inputs(scans, runs, extractor, tmp_path):
    pipeline = CascadePipeline.from_pretrained(runs["restore"])
    options = {"extractor": extractor, "cache_dir": tmp_path, "num_images": 4}
    evaluation = evaluate(pipeline, scans / "clean", pairs=str(scans / "damaged"), **options)
    baseline, whole = evaluation.measured
    assert baseline.subject == "input"
    assert whole.input == "input images of pairs, another image of 16 px"
    psnr = baseline.score("PSNR, dB")
    assert psnr is not None
    errors = []
    for index in epoch_order(0, 0, 6)[:4].tolist():
        middles = [
            np.asarray(Image.open(scans / name / f"{index}.png")).astype(float)[2:18, 4:20]
            for name in ("clean", "damaged")
        ]
        errors.append(10 * np.log10(255**2 / np.mean((middles[0] - middles[1]) ** 2)))
    assert psnr.value == pytest.approx(np.mean(errors), abs=1e-3)
    with pytest.raises(CascadeError, match="trained on pairs, so its inputs cannot be made"):
        evaluate(pipeline, scans / "clean", **options)


def test_upscalers_are_measured_on_real_small_images(scans, runs, extractor, tmp_path):
    pipeline = CascadePipeline.from_pretrained(runs["enlarge"])
    evaluation = evaluate(
        pipeline,
        scans / "clean",
        pairs=str(scans / "small"),
        extractor=extractor,
        cache_dir=tmp_path,
        num_images=3,
    )
    names = {score.name for score in evaluation.whole.scores}
    assert "PSNR, dB" in names
    assert not any("consistency" in name for name in names)


def test_a_sweep_gives_the_stage_the_real_inputs(scans, runs, extractor, tmp_path):
    pipeline = CascadePipeline.from_pretrained(runs["restore"])
    options = {"extractor": extractor, "cache_dir": tmp_path, "num_images": 4, "by": "PSNR"}
    result = sweep(
        pipeline, scans / "clean", ["steps=1,2"], out=tmp_path / "sweep",
        pairs=str(scans / "damaged"), **options,
    )  # fmt: skip
    assert len(result.outcomes) == 2
    with pytest.raises(CascadeError, match="trained on pairs"):
        sweep(pipeline, scans / "clean", ["steps=1,2"], out=tmp_path / "other", **options)


def test_grey_pictures_get_the_colours_of_another_scanner(runs, restorer):
    """A stage that takes one band of 0 to 255 takes grey pictures of 8 bits."""
    space = restorer.space
    condition = PairedImage(channels=1, range=(0, 255))
    stage = DiffusionStage.build(
        Contract(space, (condition,)),
        restorer.process,
        network_options={"channels": (8, 16), "blocks": 1, "patch_size": 2},
        sampling=restorer.sampling,
        embedding_dim=32,
    )
    pipeline = CascadePipeline.from_stages({"stage": stage})
    grey = Image.new("L", (18, 16), 90)
    result = pipeline.restore(grey)
    assert (result.mode, result.size) == ("RGB", (18, 16))
    with pytest.raises(CascadeError, match="give a Raster"):
        pipeline.restore(grey.convert("RGB"))
