"""Help, exit codes, and how errors leave the command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from cascade import __version__

VERBS = ("generate", "upscale", "colourise", "train", "ema", "chain", "ls", "show", "copy")
VERBS += ("validate", "doctor", "evaluate", "export")
RUN = "from cascade.cli.main import run; run()"


def separately(*arguments: str, before: str = "", after: str = "") -> subprocess.CompletedProcess:
    """Run the command in a process of its own, with some code before and after."""
    code = f"import sys\n{before}\ntry:\n    {RUN}\nfinally:\n    {after or 'pass'}\n"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def test_names_that_the_encoding_of_the_output_lacks_are_escaped(pictures, tmp_path):
    shutil.copy(pictures / "red" / "0.png", tmp_path / "日本.png")
    done = separately(
        *("inspect", str(tmp_path / "日本.png")),
        before="sys.stdout.reconfigure(encoding='cp1252', errors='strict')",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u65e5\u672c.png" in done.stdout


# ---- help ---------------------------------------------------------------------------------------


def test_help_lists_every_verb(command):
    for option in ("--help", "-h"):
        outcome = command(option)
        assert outcome.code == 0
        assert outcome.err == ""
        for verb in VERBS:
            assert re.search(rf"(?m)^\W+{verb} ", outcome.out)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example(command, verb):
    outcome = command(verb, "--help")
    assert outcome.code == 0
    words = " ".join(outcome.out.split())
    assert re.search(rf"Examples?: (cascade \w+ .*)?cascade {verb} ", words)


def test_version(command):
    assert command("--version").out == f"{__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_does_not_import_anything_slow(arguments):
    slow = "{'torch', 'numpy', 'diffusers', 'PIL', 'omegaconf', 'huggingface_hub'}"
    done = separately(
        *arguments, after=f"print(sorted({slow} & set(sys.modules)), file=sys.stderr)"
    )
    assert done.returncode == 0
    assert done.stderr == "[]\n"


def test_sampling_a_saved_pipeline_imports_little_besides_torch(tmp_path):
    slow = "diffusers transformers accelerate torch._dynamo scipy sympy torchvision kornia"
    slow += " webdataset huggingface_hub omegaconf tifffile pyvips tensorboard"
    done = separately(
        *("generate", "emoji-1024", "--steps", "1", "--stop-at", "base", "--out", str(tmp_path)),
        after=f"print(sorted(set({slow.split()}) & set(sys.modules)), file=sys.stderr)",
    )
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "[]"
    assert (tmp_path / "00000.png").is_file()


@pytest.mark.parametrize("arguments", [["ls"], ["validate", "--help"]])
def test_verbs_that_check_no_recipe_do_not_import_torch(arguments):
    done = separately(*arguments, after="print('torch' in sys.modules, file=sys.stderr)")
    assert done.returncode == 0
    assert done.stderr == "False\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_of_two_commands_do_not_wait_for_each_other(command, monkeypatch, given, expected):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    command("ls")  # which does not load torch, by the test above
    assert os.environ.get("GOMP_SPINCOUNT") == expected


# ---- usage: 2 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["train"],
        ["train", "tiny-16", "--no-such-option"],
        ["chain", "tiny-32"],
        ["chain", "tiny-32", "--out", "x", "--stage", "base"],
        ["generate", "tiny-32"],
        ["generate", "tiny-32", "-o", "x", "-n", "0"],
        ["generate", "tiny-32", "-o", "x", "-n", "many"],
        ["generate", "tiny-32", "-o", "x", "--steps", "5,x"],
        ["generate", "tiny-32", "-o", "x", "--guidance", "much"],
        ["copy", "tiny-16"],
        ["upscale", "a.png"],
        ["upscale", "a.png", "-o", "x", "--scale", "1"],
        ["upscale", "a.png", "-o", "x", "--temperature", "2"],
        ["colourise", "a.png", "-o", "x", "-n", "0"],
    ],
)
def test_wrong_usage_ends_with_2_and_says_how_to_get_help(
    command, arguments, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = command(*arguments)
    assert done.code == 2
    assert "Usage: " in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_no_verb_shows_the_help_and_ends_with_2(command):
    done = command()
    assert done.code == 2
    assert "generate" in done.out + done.err


# ---- errors: one line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("show tiny-61", 2, "no recipe 'tiny-61'.* 'tiny-16'"),
        ("validate tiny-61", 2, "no recipe 'tiny-61'"),
        ("copy tiny-61 x.yaml", 2, "no recipe 'tiny-61'"),
        ("train tiny-61", 2, "no stage recipe 'tiny-61'"),
        ("chain tiny-23 --out x", 2, "no pipeline recipe 'tiny-23'.* 'tiny-32'"),
        ("generate tiny-23 -o x", 1, "no pipeline 'tiny-23'.* 'tiny-32'"),
        ("show tiny-16 train.lerning_rate=1", 2, "'train.lerning_rate'; did you mean 'train.learn"),
        ("train tiny-16 train.images=many", 2, "'train.images': .* valid integer"),
        ("validate tiny-16 space.size_px=18", 2, "18 px must be a multiple of"),
        (
            "validate tiny-16 sampling.sampler=dimm",
            2,
            "tiny-16.yaml: key 'sampling.sampler': unknown sampler 'dimm'",
        ),
        ("train tiny-16 data.path=nowhere", 1, "no data at nowhere"),
        ("train tiny-16 data.path=x train.max_steps=5", 2, "'train.images', which counts images"),
        ("train tiny-16 --device abacus", 1, "device 'abacus' cannot be used here .*cuda:1, mps"),
        ("train tiny-16 --device cuda:77", 1, "device 'cuda:77' cannot be used here"),
        ("train tiny-16 data.path=nowhere-{0..3}.tar", 1, "no data at nowhere"),
        (
            "chain tiny-32 --out x",
            1,
            "no trained stage in runs/tiny-16; train it first, or .* --stage base=RUN",
        ),
        ("chain tiny-32 --out x --dtype fp8", 2, "fp32, bf16, fp16, got 'fp8'"),
        ("chain tiny-32 --out x --card no.md", 2, "no.md: cannot be read"),
        ("generate tiny-32 -o x", 1, "'tiny-32' has no weights yet: train its stages"),
        ("generate tiny-32 -o x --device abacus", 1, "device 'abacus' cannot be used"),
        ("copy tiny-16 file/x.yaml", 1, "cannot write file/x.yaml"),
    ],
)
def test_every_error_is_one_line_and_writes_nothing(
    command, tmp_path, monkeypatch, arguments, code, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    done = command(*arguments.split())
    assert re.fullmatch(r"cascade: [^\n]+\n", done.err), done.err
    assert re.search(words, done.err)
    assert done.code == code
    assert done.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_fails_is_one_line(command, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device", "log.jsonl")

    monkeypatch.setattr("cascade.recipe.finding.list_recipes", fail)
    done = command("ls")
    assert (done.code, done.out) == (1, "")
    assert done.err == "cascade: log.jsonl: No space left on device.\n"


def test_the_installed_command_ends_with_the_code_and_the_line():
    done = separately("copy", "tiny-61", "x.yaml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("cascade: no recipe 'tiny-61'")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        ("logging.getLogger('cascade').warning('%s', name)", "cascade: a\\x1b[31m\\nb.png\n"),
        ("raise CascadeError(name)", "cascade: a\\x1b[31m b.png\n"),
    ],
)
def test_what_names_of_files_contain_is_escaped(statement, line):
    before = (
        "import logging, cascade.recipe.finding as r\nfrom cascade.errors import CascadeError\n"
        f"def fail(*_):\n    name = 'a\\x1b[31m\\nb.png'\n    {statement}\n    return []\n"
        "r.list_recipes = fail"
    )
    lines = separately("ls", before=before).stderr.splitlines(keepends=True)
    assert set(lines) == {line}


def test_ctrl_c_ends_with_130_and_no_traceback():
    interrupted = "import cascade.cli.main as m, cascade.recipe.finding as r\n" + (
        "def stop(*_): raise KeyboardInterrupt\nr.list_recipes = stop"
    )
    done = separately("ls", before=interrupted)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
