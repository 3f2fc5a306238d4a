"""`cascade generate` with prompts."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from cascade import __version__
from cascade.errors import OutputError
from cascade.pipeline import CascadePipeline
from cascade.text.transformers_encoder import TransformersEncoder


@pytest.fixture(scope="module")
def folder(_text_stages, tmp_path_factory) -> Path:
    """A saved pipeline that takes text."""
    folder = tmp_path_factory.mktemp("pipelines") / "mine"
    CascadePipeline.from_stages(_text_stages).save_pretrained(folder)
    return folder


@pytest.fixture
def generate(command, folder, tmp_path):
    """A function that runs the command into the folder `out`."""

    def run(*arguments: object, pipeline: object = folder):
        fast = ["--steps", "1", "--device", "cpu"]
        return command("generate", pipeline, *arguments, *fast, "-o", tmp_path / "out")

    return run


def record_of(path: Path) -> dict:
    with Image.open(path) as picture:
        return json.loads(picture.text["cascade"])


def index_of(folder: Path) -> list[dict]:
    lines = (folder / "index.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def pictures_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


@pytest.mark.parametrize(
    ("verb", "argument"),
    [("generate", "[PROMPT]"), ("sweep", "[[STAGE.]SETTING=VALUE,VALUE…]...")],
)
def test_usage_has_one_pair_of_brackets_around_what_may_be_left_out(command, verb, argument):
    done = command(verb, "--help")
    assert f" [OPTIONS] {{pipeline}} {argument} " in " ".join(done.out.split())


# ---- what is drawn ------------------------------------------------------------------------------


def test_prompt_negative_prompt_and_guidance_are_recorded(generate, tmp_path):
    options = ["-n", 2, "--seed", 4, "--negative", "a dog", "--guidance", 3]
    done = generate("A red cat, noto", *options)
    out = tmp_path / "out"
    assert (done.code, done.err.count("Traceback")) == (0, 0), done.err
    assert done.out == f"2 images, grid.png and index.jsonl in {out}\n"
    names = ["00000-a-red-cat-noto.png", "00001-a-red-cat-noto.png"]
    assert pictures_in(out) == [*names, "grid.png"]
    for number, name in enumerate(names):
        record = record_of(out / name)
        guidance = [stage["guidance"] for stage in record.pop("stages").values()]
        assert guidance == [3.0, 3.0]
        assert {"base.guidance", "upsampler.guidance"} <= set(record.pop("changed"))
        assert record == {
            "command": "generate",
            "model": record["model"],
            "model_is_folder": True,
            "version": __version__,
            "seed": 4 + number,
            "prompt": "A red cat, noto",
            "negative_prompt": "a dog",
            "labels": {},
        }
        assert index_of(out)[number] == {
            "file": name,
            "prompt": "A red cat, noto",
            "negative_prompt": "a dog",
            "seed": 4 + number,
        }
    assert record_of(out / "grid.png")["prompts"] == ["A red cat, noto"] * 2


def test_pictures_are_those_of_the_pipeline(generate, folder, tmp_path):
    assert generate("--prompt", "a red cat", "--class", "noto", "--seed", 4).code == 0
    pipeline = CascadePipeline.from_pretrained(folder)
    (expected,) = pipeline("a red cat", labels="noto", seed=4, steps=1).images
    with Image.open(tmp_path / "out" / "00000-a-red-cat.png") as picture:
        assert picture.tobytes() == expected.tobytes()


def test_a_file_has_a_prompt_on_each_line(generate, tmp_path, monkeypatch):
    monkeypatch.setattr("cascade.generation.files.PICTURES_AT_A_TIME", 3)  # not a multiple of two
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa cat\r\n\r\n  a blue dog \n\n\nкот 🐱".encode())
    done = generate("--prompts", file, "-n", 2, "--seed", 0)
    assert done.code == 0, done.err
    assert done.err.splitlines()[0] == f"skipped 3 empty lines of {file}"
    entries = index_of(tmp_path / "out")
    prompts = ["a cat", "a cat", "a blue dog", "a blue dog", "кот 🐱", "кот 🐱"]
    assert [each["prompt"] for each in entries] == prompts
    assert [each["seed"] for each in entries] == list(range(6))
    assert [each["file"] for each in entries][1::2] == [
        "00001-a-cat.png",
        "00003-a-blue-dog.png",
        "00005-кот.png",
    ]
    for each in entries:
        record = record_of(tmp_path / "out" / each["file"])
        assert (record["prompt"], record["seed"]) == (each["prompt"], each["seed"])


def test_prompts_can_come_through_a_pipe(generate, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a cat\na dog\n")))
    assert generate("--prompts", "-").code == 0
    assert [each["prompt"] for each in index_of(tmp_path / "out")] == ["a cat", "a dog"]


def test_a_second_series_goes_on_and_overwriting_leaves_no_old_names(generate, tmp_path):
    generate("a cat")
    generate("a dog", "-n", 2)
    out = tmp_path / "out"
    assert pictures_in(out)[:3] == ["00000-a-cat.png", "00001-a-dog.png", "00002-a-dog.png"]
    generate("a house", "-n", 2, "--overwrite")
    names = ["00000-a-house.png", "00001-a-house.png", "00002-a-dog.png"]
    assert pictures_in(out)[:3] == names
    assert sorted(each["file"] for each in index_of(out)) == names


def test_without_a_prompt_nothing_is_listed(generate, tmp_path):
    assert generate().code == 0
    assert pictures_in(tmp_path / "out") == ["00000.png", "grid.png"]
    assert not (tmp_path / "out" / "index.jsonl").exists()
    assert "prompt" not in record_of(tmp_path / "out" / "00000.png")


def test_an_empty_prompt_is_no_prompt(generate, tmp_path):
    done = generate("", "--seed", 1)
    assert done.err.startswith("the prompt is empty, so the images are generated without text\n")
    assert pictures_in(tmp_path / "out") == ["00000.png", "grid.png"]
    assert record_of(tmp_path / "out" / "00000.png")["prompt"] == ""


def test_prompts_that_are_cut_are_reported_once_before_the_first_picture(
    generate, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("cascade.generation.files.PICTURES_AT_A_TIME", 1)
    file = tmp_path / "prompts.txt"
    file.write_text("a red cat in a house\na cat\na cat in the red dot\n")
    assert generate("--prompts", file, "-n", 2).code == 0
    assert [each for each in caplog.messages if "prompt" in each] == [
        "2 prompts are too long, so this end of the first is cut off: 'a house'"
    ]


def test_many_prompts_are_checked_once_each_before_the_first_picture(
    generate, tmp_path, monkeypatch
):
    cut, texts = TransformersEncoder.cut, []

    def counted(self, text, max_tokens):
        texts.append(text)
        return cut(self, text, max_tokens)

    def stopped(*_):
        raise OutputError("nothing is drawn")

    monkeypatch.setattr(TransformersEncoder, "cut", counted)
    monkeypatch.setattr("cascade.generation.files._generate", stopped)
    lines = [f"a red cat {number % 2500}" for number in range(10_000)]
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(lines))
    begin_s = time.process_time()
    done = generate("--prompts", file)
    assert time.process_time() - begin_s < 10  # about 1 on an idle machine
    assert done.err.endswith("cascade: nothing is drawn\n")
    assert sorted(texts) == sorted([*{*lines}] * 2)  # once for each stage
    texts.clear()
    assert "unknown class 'nosuch'" in generate("--prompts", file, "--class", "nosuch").err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failing_command_leaves_index_and_series_as_they_were(generate, tmp_path):
    assert generate("a cat", "-n", 2, "--seed", 1).code == 0
    out = tmp_path / "out"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for wrong in (
        ["a cat", "-n", 2, "--overwrite", "--class", "nosuch"],
        ["a cat", "--negative", "a dog", "--guidance", 1],
        ["a cat", "--overwrite", "--resume"],
        ["a cat", "--set", "base.keep_colours=true"],
    ):
        done = generate(*wrong)
        assert (done.code, done.err.count("\n")) == (1, 1), done.err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    done = generate("a cat", "-n", 2, "--seed", 1, "--resume")
    assert "2 images of 2 existed already" in done.out
    (out / "index.jsonl").write_text('{"file": "00000-a-cat.png"}\nnot json\n')
    done = generate("a cat")
    assert done.err == (
        f"cascade: {out / 'index.jsonl'}, line 2, is not JSON; correct or delete the line, or move "
        "the file away.\n"
    )


# ---- help ---------------------------------------------------------------------------------------


def test_the_help_shows_prompts(command):
    words = re.sub(r"[│\s]+", " ", command("generate", "--help").out)
    assert "[PROMPT]" in words
    assert 'cascade generate emoji-1024 "a cat with tears of joy" -n 4' in words
    assert "--prompts prompts.txt" in words


@pytest.mark.parametrize(
    ("option", "own"),
    [
        ("--text", "--text is called --prompt here"),
        ("--negative-prompt", "--negative-prompt is called --negative here"),
        ("--guidance-scale", "--guidance-scale is called --guidance here"),
        ("--prompt-file", "--prompt-file is called --prompts here"),
    ],
)
def test_other_programs_options_are_answered_with_ours(command, option, own):
    outcome = command("generate", "mine", option, "x", "-o", "out")
    assert outcome.code == 2
    assert own in outcome.err


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"nosuch\.txt: cannot be read \(No such file or directory\)"),
        (b"a cat\ncaf\xe9\n", r"nosuch\.txt is not UTF-8 text, see line 2; save it as UTF-8"),
        (b"\n \n\n", r"nosuch\.txt has no prompts, only 3 empty lines; write one prompt per line"),
        (b"", r"nosuch\.txt has no prompts; write one prompt per line"),
    ],
)
def test_a_bad_file_of_prompts_is_one_line(generate, tmp_path, content, words):
    file = tmp_path / "nosuch.txt"
    if content is not None:
        file.write_bytes(content)
    done = generate("--prompts", file)
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"cascade: [^\n]+\n", done.err), done.err
    assert re.search(words, done.err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [["a", "--prompts", "b"], ["a", "--prompt", "b"], ["--prompt", "a", "--prompts", "b"]],
)
def test_two_sources_of_prompts_exclude_each_other(generate, tmp_path, arguments):
    done = generate(*arguments)
    assert done.code == 2
    assert "PROMPT and --prompts FILE exclude each other" in done.err
    assert not (tmp_path / "out").exists()


def test_a_negative_prompt_without_guidance_is_one_line(generate, tmp_path):
    done = generate("a cat", "--negative", "a dog")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "negative_prompt has no effect at guidance 1; use guidance above 1" in done.err
    assert pictures_in(tmp_path / "out") == []


def test_a_pipeline_without_text_is_one_line(generate, trained, tmp_path):
    done = generate("a cat", pipeline=trained.pipeline)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "takes no prompt; it takes labels: class (blue, red, red-dot)." in done.err
    assert not (tmp_path / "out").exists()
