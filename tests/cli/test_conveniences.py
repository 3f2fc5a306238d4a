"""Other programs' names, tab completion, and the user's file of defaults."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import typer

from cascade.cli.defaults import FILE
from cascade.cli.main import app
from cascade.cli.synonyms import ADVICE, SYNONYMS

VERBS = typer.main.get_command(app).commands


# ---- other programs' names ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "own"),
    [
        ("generate emoji-1024 --output out", "--output is called --out here"),
        ("generate emoji-1024 --text cat -o out", "--text is called --prompt here"),
        ("generate emoji-1024 --num_images 3 -o out", "--num_images is called --num-images here"),
        ("upscale a.jpg -o out --tile-size 64", "--tile-size is called --tile here"),
        ("colourise a.jpg -o out --num-images 3", "--num-images is called -n here"),
        ("train tiny-16 --lr 1e-4", "--lr. Give the recipe key train.learning_rate=VALUE."),
        ("train tiny-16 --epochs=3", "key train.images=VALUE, which counts images (epochs times"),
        ("train tiny-16 --batch-size 3", "Give the recipe key train.batch_size=VALUE."),
        ("show tiny-16 --train.seed 3", "Give the recipe key train.seed=VALUE."),
        ("sweep emoji-1024 --data x --guidance 1,2", "Settings are given as guidance=VALUE,"),
        ("upscale a.jpg -o out --jobs 3", "--jobs is called --workers here"),
        ("evaluate photo-x4 --data x --limit 3", "--limit is called --num-images here"),
        (
            "upscale a.jpg -o out --resume",
            "Repeat the same command: it continues where it stopped.",
        ),
        ("edit a.jpg -o out --skip_existing", "Repeat the same command"),
        ("colourise a -o out --recursive", "Folders are searched with all folders in them."),
        ("restore a -o out --limit 3", "Name the images, or a part of them"),
        ("upscale a.jpg -o out --width 400", "as a factor of the input's: --scale."),
        ("upscale a.jpg -o out --stpes 4", "No such option: --stpes (Possible options: --steps)"),
        ("data check photos --num-workers 3", "--num-workers is called --workers here"),
    ],
)
def test_other_programs_options_are_answered_with_ours(command, arguments, own):
    outcome = command(*arguments.split())
    assert outcome.code == 2
    assert own in outcome.err


def test_an_option_that_means_nothing_gets_no_answer(command):
    for verb in ("sweep", "train"):
        assert "VALUE" not in command(verb, "x", "--nosuch", "3").err.split("Error")[-1]


@pytest.mark.parametrize(
    "line",
    [
        "generate x --epochs 3",
        "upscale x --width",
        "upscale x --rescan",
        "ls --jobs",
        "ls --resume",
    ],
)
def test_no_option_is_guessed_that_is_only_a_little_alike(command, line):
    assert "Possible options" not in command(*line.split()).err


def test_every_answer_is_an_option_of_some_command():
    inner = [each for verb in VERBS.values() for each in getattr(verb, "commands", {}).values()]
    verbs = [verb for verb in VERBS.values() if not hasattr(verb, "commands")]
    options = {option for verb in (*verbs, *inner) for option in verb.options()}
    for names in SYNONYMS.values():
        assert options & set(names)
    assert options >= {option for option, _ in ADVICE.values()}


# ---- tab completion -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cascade generate emo", ["emoji-1024"]),
        ("cascade upscale a.jpg --model photo-x", ["photo-x4", "photo-x4-restore"]),
        ("cascade generate emoji-1024 --class cat-face,no", ["cat-face,noto"]),
        ("cascade train tiny-16 data.cr", ["data.crop_px="]),
        ("cascade show tiny-1", ["tiny-16", "tiny-16-to-32"]),
        ("cascade chain tin", ["tiny-32"]),
        ("cascade generate no-such-pipeline --class c", []),
    ],
)
def test_tab_offers(ask, line, words, tmp_path):
    environment = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    (tmp_path / FILE).write_text("nosuch: 1")  # a fault of the file is no concern of the shell
    assert sorted(ask("complete_bash", environment).split()) == words


@pytest.fixture
def ask(command, monkeypatch, tmp_path):
    """A function that asks `cascade` as the script of a shell does, by environment variables."""
    monkeypatch.chdir(tmp_path)
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__package__", None)  # else the program is "python -m pytest"

    def ask_command(instruction: str, environment: dict[str, str]) -> str:
        for name, value in {**environment, "_CASCADE_COMPLETE": instruction}.items():
            monkeypatch.setenv(name, value)
        outcome = command()
        assert outcome.err == ""
        return outcome.out

    return ask_command


@pytest.mark.parametrize("shell", ["zsh", "fish", "powershell"])
def test_other_shells_are_offered_the_same(ask, shell):
    line = {
        "_TYPER_COMPLETE_ARGS": "cascade show tiny-1",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    line |= {"_TYPER_COMPLETE_WORD_TO_COMPLETE": "tiny-1"}
    offered = ask(f"complete_{shell}", line)
    assert re.findall(r"tiny-[\w-]+", offered) == ["tiny-16-to-32", "tiny-16"]


def test_the_script_that_is_documented_works_in_bash(ask, tmp_path):
    script = ask("source_bash", {})
    (tmp_path / "cascade").write_text('#!/bin/sh\necho "$COMP_WORDS $COMP_CWORD"\n')
    (tmp_path / "cascade").chmod(0o755)
    press = 'COMP_WORDS=(cascade ls --); COMP_CWORD=2; _cascade_completion "$0"'
    line = f'{script}\n{press}; echo "${{COMPREPLY[*]}}"; complete -p cascade'
    done = subprocess.run(
        ["bash", "-c", line, tmp_path / "cascade"], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "cascade ls -- 2",
        "complete -o default -F _cascade_completion cascade",
    ]


# ---- the file of defaults -----------------------------------------------------------------------


@pytest.fixture
def defaults(tmp_path, monkeypatch):
    """A function that writes `cascade.yaml` into the working folder."""
    monkeypatch.chdir(tmp_path)
    return (tmp_path / "cascade.yaml").write_text


def test_defaults_are_used_and_stated(command, defaults, pictures, caplog):
    defaults("device: cpu\ndata check:\n  size: 4000\n")
    outcome = command("data", "check", pictures)
    assert "18 too small" in outcome.out
    assert "cascade.yaml sets --size 4000" in caplog.text
    assert "18 too small" not in command("data", "check", pictures, "--size", "8").out


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("generate:\n  class: [heart, cat-face]\n  steps: [1, 1]",
         "--class heart --class cat-face --steps 1,1"),
        ("generate:\n  set: eta=0.5\n  steps: 1\n  keep-intermediates: false",
         "--steps 1 --set eta=0.5"),
        ("out: 2024\nsteps: 9\ngenerate: {steps: 1}", "--out 2024 --steps 1"),
        ("# steps: 9", ""),
    ],
)  # fmt: skip
def test_values_are_taken_as_the_command_line_takes_them(command, defaults, caplog, text, options):
    defaults(text)
    command("generate", "no-such-pipeline", *([] if "2024" in text else ["-o", "out"]))
    assert [r.message for r in caplog.records if FILE in r.message] == (
        [f"cascade.yaml sets {options}"] if options else []
    )


@pytest.mark.parametrize("section", ["colourise", "colorize"])
@pytest.mark.parametrize("typed", ["colourise", "colorize"])
def test_both_spellings_share_their_defaults(command, defaults, section, typed):
    defaults(f"{section}:\n  hints: nosuch.png\n  steps: -1")
    assert "Invalid value for '--steps': cascade.yaml: " in command(typed, "a", "-o", "b").err


def test_the_command_line_overrides_quiet_in_the_file(command, defaults):
    defaults("quiet: true")
    assert command("copy", "tiny-16", "a.yaml").out == ""
    assert "wrote b.yaml" in command("copy", "tiny-16", "b.yaml", "-v").out


def test_help_comes_even_if_the_file_is_wrong(command, defaults):
    defaults("nosuch: 1")
    assert command("ls").code == 2
    assert command("ls", "--help").code == 0


def test_defaults_of_all_commands_reach_those_that_have_the_option(command, defaults):
    defaults("out: drawings\nsteps: 1\ngenerate:\n  num-images: 2\n  stop-at: base\n")
    outcome = command("generate", "emoji-1024", "--seed", "1")
    assert outcome.out == "2 images and grid.png in drawings\n"
    assert command("ls").code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "devices: cpu",
            "no option 'devices' (give the file another name if it does not hold "
            "defaults of cascade): did you mean 'device' or 'denoise'?",
        ),
        ("upscale:\n  mode: x", "no option of upscale 'mode'"),
        ("upscal:\n  model: x", "did you mean 'upscale'?"),
        ("- a\n- b", "must be options with values"),
        ("a: [", "cannot be read as YAML"),
        ("device: {a: 1}", "no command 'device'"),
        ("device:", "device must have one value"),
        ("upscale:\n  scale: {a: 1}", "scale must have one value"),
    ],
)
def test_faults_of_the_file_are_one_line(command, defaults, text, message):
    defaults(text)
    outcome = command("ls")
    assert outcome.code == 2
    assert outcome.err.startswith("cascade: cascade.yaml: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
