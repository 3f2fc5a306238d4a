from __future__ import annotations

import logging
import shutil
from types import SimpleNamespace
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from cascade.cli.main import _verbs
from cascade.cli.progress import SamplingProgress, TaskProgress, TrainingProgress
from cascade.cli.verbosity import Verbosity, verbosity, with_verbosity

SHARE = ("--max-broken-share", "0.5")
VALUES = {"loss": 1.0, "gradient_norm": 1.0, "images_per_s": 1.0}
FAKE_PIPELINE = SimpleNamespace(current_stage="base", num_timesteps=1)


@pytest.fixture
def app() -> typer.Typer:
    """A program with one command, which prints how much it may print."""

    def command(name: Annotated[str, typer.Argument(help="A name.")], number: int = 3) -> None:
        """Do something."""
        level = logging.getLogger("cascade").getEffectiveLevel()
        typer.echo(f"{name} {number} {verbosity().name} {logging.getLevelName(level)}")

    app = typer.Typer(add_completion=False)
    app.command()(with_verbosity(command))
    return app


@pytest.mark.parametrize(
    ("options", "level", "log"),
    [
        ([], "NORMAL", "INFO"),
        (["-q"], "QUIET", "ERROR"),
        (["--quiet"], "QUIET", "ERROR"),
        (["-v"], "VERBOSE", "DEBUG"),
        (["--verbose", "--number", "4"], "VERBOSE", "DEBUG"),
    ],
)
def test_a_command_gets_both_options_and_keeps_its_own(app, options, level, log):
    done = CliRunner().invoke(app, ["x", *options])
    assert done.output == f"x {4 if '4' in options else 3} {level} {log}\n"


def test_one_command_does_not_influence_the_next(app):
    CliRunner().invoke(app, ["x", "-q"])
    assert "NORMAL" in CliRunner().invoke(app, ["x"]).output
    assert verbosity() is Verbosity.NORMAL


def test_both_together_are_refused(app):
    done = CliRunner().invoke(app, ["x", "-q", "-v"])
    assert done.exit_code == 2
    assert "--quiet and --verbose exclude each other" in done.output


def test_the_help_of_the_command_is_kept(app):
    text = CliRunner().invoke(app, ["--help"]).output
    assert all(words in text for words in ("Do something.", "--number", "-q", "--verbose"))


@pytest.mark.parametrize("verb", _verbs().values(), ids=_verbs())
def test_every_command_has_both_options(verb):
    assert {"-q", "--quiet", "-v", "--verbose"} <= set(verb.options())


def test_quiet_leaves_what_a_command_exists_to_print(command, tmp_path, pictures):
    assert command("ls", "-q").out == command("ls").out != ""
    assert command("show", "tiny-16", "-q").out == command("show", "tiny-16").out != ""
    assert command("copy", "tiny-16", tmp_path / "a.yaml", "-q").out == ""
    assert command("validate", "tiny-16", "--no-data", "-q").out == ""
    assert "unknown key" in command("validate", "tiny-16", "nosuch=1", "-q").err


def test_quiet_data_commands_name_faults_only(command, tmp_path, pictures):
    photos = tmp_path / "photos"
    shutil.copytree(pictures, photos)  # the pictures are shared by all tests
    (photos / "broken.png").write_text("x")
    (photos / "notes.pdf").write_text("x")
    checked = command("data", "check", photos, "-q")
    (line,) = checked.out.splitlines()
    assert (checked.code, line.split(": ")[0], checked.err) == (1, "broken", "")
    assert "broken.png" in line
    built = command("data", "build", photos, "-o", tmp_path / "shards", "-q", *SHARE)
    assert (built.code, built.out) == (1, "")
    (line,) = built.err.splitlines()
    assert line.startswith("left out: ")
    assert "broken.png" in line


def test_the_bar_of_a_resumed_series_counts_what_is_drawn(capfd):
    with SamplingProgress(5) as progress:
        progress.leave_out(4)
        for step in range(FAKE_PIPELINE.num_timesteps):
            progress.on_step(FAKE_PIPELINE, step, 0, {"seeds": [0]})
    assert capfd.readouterr().err == "base, images: 1/1\n"


def test_quiet_hides_all_progress(capfd):
    def show_progress() -> None:
        with TaskProgress(with_ends=True) as progress:
            progress.update("measuring", 1, 1)
        with TrainingProgress("mine", 10) as training:
            training.start_at(1)
            training.update({"images": 10, **VALUES})
        with SamplingProgress(1) as sampling:
            sampling.on_step(FAKE_PIPELINE, 0, 0, {"seeds": [0]})

    with_verbosity(show_progress)(quiet=True)
    assert capfd.readouterr() == ("", "")
    with_verbosity(show_progress)()
    text = capfd.readouterr().err
    assert all(name in text for name in ("measuring", "mine", "base"))
