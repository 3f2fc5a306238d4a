from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from PIL import Image

from cascade.training import step_log
from cascade.training.provenance import command_line, count_classes
from cascade.training.report import render, write_report
from cascade.training.run_record import read_run

SAMPLES = ["train.sample_every_images=32", "train.sample_count=2", "sampling.steps=1"]


class Reader(HTMLParser):
    """Collects text, tags and the addresses that a page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [v for k, v in attributes if k in ("src", "href", "srcset", "data") and v]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def _run(make_trainer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_log, "LOG_EVERY_STEPS", 1)
        for images in (32, 96):
            make_trainer(folder, f"train.images={images}", *SAMPLES).run()
    return folder


@pytest.fixture
def run(_run, tmp_path):
    """A run of 96 images in two parts, with samples."""
    return shutil.copytree(_run, tmp_path / "run")


def test_a_report_spans_all_parts_of_a_run(run):
    record = read_run(run)
    assert [line["images"] for line in record.steps] == [16, 32, 48, 64, 80, 96]
    assert [line["images"] for line in record.meters] == [32, 64, 96]
    seconds = [line["seconds"] for line in record.steps]
    assert seconds == sorted(seconds)
    assert seconds[2] > seconds[1] > 0
    page = Reader((run / "report.html").read_text())
    assert "from image 0," in page.text
    assert "from image 32," in page.text
    assert page.tags.count("img") == 3
    assert page.tags.count("svg") == 4 + 3
    assert "Images seen 96 " in page.text


def test_a_report_tells_stage_data_recipe_and_versions(run):
    import torch

    text = Reader((run / "report.html").read_text()).text
    for words in (
        "noise → 16 px",
        "transformer, 0.2",
        "Images 18",
        "class: 3 names blue 6 red 6 red-dot 6",
        "learning_rate: 0.002",
        f"torch {torch.__version__.split('+')[0]}",
        "after 32 images",
    ):
        assert words in text, words


def test_a_report_loads_nothing_and_runs_nothing(run):
    text = (run / "report.html").read_text()
    page = Reader(text)
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?://", text)


def test_names_of_classes_paths_and_files_are_text(make_trainer, tmp_path, pictures):
    data = tmp_path / "<script>alert(1)</script>"
    shutil.copytree(pictures, data)
    (data / "red").rename(data / "<img src=x onerror=y>")
    make_trainer(tmp_path / "run", "train.images=32", f"data.path={data}").run()
    about = json.loads((tmp_path / "run" / "about.json").read_text())
    about["broken"] = ["<b>a.png: <i>not a picture"]
    (tmp_path / "run" / "about.json").write_text(json.dumps(about))
    page = Reader(write_report(tmp_path / "run").read_text())
    assert not {"script", "b", "i", "img"} & set(page.tags)
    assert "<img src=x onerror=y> 6" in page.text
    assert "Broken 1, skipped" in page.text
    assert "<b>a.png: <i>not a picture" in page.text


def test_keys_of_urls_are_not_in_a_report(run, monkeypatch):
    url = "https://me:hunter2@host/a.tar?key=hunter2"
    monkeypatch.setattr("sys.argv", ["cascade", "train", "mine", f"data.path={url}"])
    about = json.loads((run / "about.json").read_text())
    about["parts"][-1]["command"] = command_line()
    (run / "about.json").write_text(json.dumps(about))
    recipe = re.sub("path: .*", f"path: {url}", (run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(recipe)
    text = write_report(run).read_text()
    assert text.count("https://host/a.tar") == 3  # source, recipe, command
    assert "hunter2" not in text


def test_a_run_that_was_stopped_has_a_report_that_says_so(make_trainer, tmp_path):
    def stop(line):
        trainer.stop_requested = True

    trainer = make_trainer(tmp_path, report=stop)
    trainer.run()
    text = Reader((tmp_path / "report.html").read_text()).text
    assert "160 of 320; not finished, the same command resumes it" in text


def test_a_run_that_fails_has_a_report_too(make_trainer, tmp_path, pictures):
    shutil.copytree(pictures, tmp_path / "data")

    def break_all(line):
        for file in (tmp_path / "data").rglob("*.png"):
            file.write_bytes(b"no image")

    values = [f"data.path={tmp_path / 'data'}", "data.cache_mib=0"]
    with pytest.raises(ValueError, match="images are broken"):
        make_trainer(tmp_path / "run", *values, report=break_all).run()
    assert "160 of 320" in Reader((tmp_path / "run" / "report.html").read_text()).text


def test_damaged_files_are_left_out(run):
    with open(run / "log.jsonl", "a") as log:
        log.write('{"images": 112, "lo')
    (run / "samples" / "000000000064.png").write_bytes(b"cut")
    (run / "samples" / "mine.png").write_bytes(b"not a grid")
    page = Reader(render(read_run(run)))
    assert page.tags.count("img") == 2
    about = json.loads((run / "about.json").read_text())
    edited = (
        "{",
        json.dumps(about | {"parts": [{"command": "mine"}]}),
        json.dumps(about | {"stage": {"network": 3}}),
        json.dumps(about | {"grid": "all"}),
        json.dumps(about | {"data": "photographs"}),
        json.dumps(about | {"broken": 2}),
    )
    for text in edited:
        (run / "about.json").write_text(text)
        assert "Images seen 96" in Reader(render(read_run(run))).text


def test_of_many_grids_the_first_a_few_and_the_last_are_shown(run):
    for number in range(0, 1000, 10):
        Image.new("RGB", (4, 4)).save(run / "samples" / f"{number:012d}.png")
    captions = re.findall(r"<figcaption>after (\d+) images", render(read_run(run)))
    assert len(captions) == 4
    assert (captions[0], captions[-1]) == ("0", "990")


def test_an_upsampler_s_report_shows_its_consistency(make_trainer, tmp_path):
    make_trainer(tmp_path, "train.images=32", *SAMPLES, recipe="tiny-16-to-32").run()
    text = Reader((tmp_path / "report.html").read_text()).text
    assert "Stage 16 px → 32 px" in text
    assert "Low res consistency" in text
    assert "In groups of 3: image, sample, truth." in text


def test_the_command_makes_a_report_anew_or_says_what_is_missing(command, run, tmp_path):
    (run / "report.html").unlink()
    assert command("report", run).code == 0
    assert (run / "report.html").is_file()
    (tmp_path / "empty").mkdir()
    outcome = command("report", tmp_path / "empty")
    assert outcome.code == 1
    assert outcome.err.startswith("cascade: no run in ")
    assert outcome.err.count("\n") == 1


def test_classes_are_counted(pictures):
    from cascade.data.sources import open_source

    counted = count_classes(open_source(str(pictures)), ["class"])
    assert counted == {"class": {"blue": 6, "red": 6, "red-dot": 6}}
