"""Runs of `cascade train` on several processes over gloo."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from PIL import Image
from safetensors.torch import load_file

from cascade.data.broken import ALWAYS_ALLOWED_IMAGES
from cascade.errors import CascadeError
from cascade.training.processes import make_accelerator

IMAGES = 64
TIMEOUT_S = 240
NEWS = (
    "cascade: resuming ",
    "cascade: stopping ",
    "cascade: with another number of images ",
)


def command_line(data: Path, *overrides: str, images: int = IMAGES) -> list[str]:
    """All but the folder of the run."""
    return [
        "train",
        "tiny-16",
        f"data.path={data}",
        f"train.images={images}",
        "train.batch_size=16",
        "train.precision=fp32",
        "train.sample_every_images=0",
        "train.checkpoint_every_images=32",
        "train.snapshot_every_images=64",
        f"data.validation={unseen(data)}",
        "train.validate_every_images=64",
        *overrides,
        "--out",
    ]


def unseen(data: Path) -> Path:
    """A folder of validation pictures beside the training pictures."""
    folder = data.parent / f"{data.name}-unseen"
    if not folder.exists():
        folder.mkdir()
        for number in range(3):
            Image.new("RGB", (40, 40), (number, 99, 200)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def one(server, pictures, tmp_path_factory) -> Path:
    """The folder of a run on one process."""
    out = tmp_path_factory.mktemp("one")
    assert server.run([*command_line(pictures), out], out / "said") == [0]
    assert log(out)[-1]["kind"] == "validation"
    return out


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def assert_same_training(run: Path, other: Path) -> None:
    """Sums in another order differ in the last digits only."""
    for name in ("stage", "ema", "optimisers"):
        file = f"checkpoints/{IMAGES:012d}/{name}.safetensors"
        tensors, others = load_file(run / file), load_file(other / file)
        assert tensors.keys() == others.keys()
        for key, tensor in tensors.items():
            assert torch.allclose(tensor, others[key], atol=1e-5), key
    for line, other_line in zip(log(run), log(other), strict=True):
        assert line.keys() == other_line.keys()
        for key in line.keys() & {"kind", "validation"}:
            assert line[key] == other_line[key]
        for key in line.keys() - {"seconds", "images_per_s", "kind", "validation"}:
            assert line[key] == pytest.approx(other_line[key], rel=1e-4, abs=1e-3), key


def launch(settings: list[str], arguments: list[object]) -> subprocess.CompletedProcess[str]:
    """The command on two processes, by `accelerate launch`.

    With `--cpu` it would start one only.
    """
    return subprocess.run(
        [
            *[sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"],
            *["--main_process_port", "0"],  # any that is free
            *settings,
            *["-m", "cascade.cli", *map(str, arguments)],
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "ACCELERATE_DYNAMO_BACKEND": "eager",
        },
    )


def on_two_processes(run: Path) -> bool:
    [part] = json.loads((run / "about.json").read_text())["parts"]
    return part["hardware"].startswith("2 processes on CPU")


def errors(said: Path) -> list[str]:
    """What the processes say of their failure, each once."""
    text = said.read_text()
    assert "Traceback" not in text, text
    lines = [line for line in text.splitlines() if line.startswith("cascade: ")]
    return [line for line in lines if not line.startswith(NEWS)]


# ---- the same training --------------------------------------------------------------------------


@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_two_processes_train_as_one(server, pictures, one, tmp_path, accumulation_steps):
    changes = [f"train.accumulation_steps={accumulation_steps}", "train.workers=1"]
    arguments = [*command_line(pictures, *changes), tmp_path / "two"]
    assert server.run(arguments, tmp_path / "said", processes=2) == [0, 0]
    assert (tmp_path / "said").read_text().count("wrote the trained stage to") == 1
    assert_same_training(tmp_path / "two", one)


@pytest.mark.slow
def test_two_processes_distil_as_one(server, pictures, one, tmp_path):
    _, _, *values, out = command_line(pictures, "train.sample_count=4")
    values[values.index("train.sample_every_images=0")] = "train.sample_every_images=64"
    arguments = ["distil", one, "--steps", 2, *values, out]
    for run, processes in (("alone", 1), ("two", 2)):
        codes = server.run([*arguments, tmp_path / run], tmp_path / "said", processes)
        assert set(codes) == {0}, (tmp_path / "said").read_text()
    assert any("distance_to_teacher_student" in line for line in log(tmp_path / "alone"))
    assert_same_training(tmp_path / "two", tmp_path / "alone")


def test_a_run_goes_on_with_another_number_of_processes(server, pictures, one, tmp_path):
    half = [*command_line(pictures, images=32), tmp_path / "run"]
    assert server.run(half, tmp_path / "said", processes=2) == [0, 0]
    assert server.run([*command_line(pictures), tmp_path / "run"], tmp_path / "said") == [0]
    file = f"checkpoints/{32:012d}/stage.safetensors"
    assert torch.allclose(
        torch.cat([tensor.flatten() for tensor in load_file(tmp_path / "run" / file).values()]),
        torch.cat([tensor.flatten() for tensor in load_file(one / file).values()]),
        atol=1e-5,
    )


@pytest.mark.slow
def test_accelerate_launches_the_same_command_and_its_settings_change_nothing(
    pictures, one, tmp_path
):
    settings = ["--mixed_precision", "bf16", "--gradient_accumulation_steps", "4"]
    done = launch([*settings, "--multi_gpu"], [*command_line(pictures), tmp_path / "two"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote the trained stage to") == 1
    assert on_two_processes(tmp_path / "two")
    assert_same_training(tmp_path / "two", one)


# ---- sharded ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sharded_processes_hold_half_each_and_train_as_one_and_go_on_exactly(
    server, pictures, one, tmp_path
):
    run, said = tmp_path / "run", tmp_path / "said"
    _, *recipe, _ = command_line(pictures)
    script = Path(__file__).with_name("run_and_count.py")
    codes = server.run([run, *recipe], said, processes=2, sharded=True, script=script)
    assert codes == [0, 0], said.read_text()
    assert_same_training(run, one)
    held = [json.loads((tmp_path / f"run.{rank}.json").read_text()) for rank in range(2)]
    for name, times in {"weights": 1, "ema": 1, "averages": 2, "moments": 2}.items():
        (first, whole), (second, _) = (each[name] for each in held)
        assert whole == times * held[0]["weights"][1]
        assert first + second == whole
        assert 0.48 < first / whole < 0.52
    newest = run / "checkpoints" / f"{IMAGES:012d}"
    newest.rename(tmp_path / "newest")
    assert server.run([*command_line(pictures), run], said, processes=2, sharded=True) == [0, 0]
    for file in newest.glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "newest" / file.name).read_bytes(), file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "change"),
    [("tiny-16", "accumulation_steps=3"), ("tiny-16-to-32", "gradient_checkpointing=true")],
)
def test_sharding_through_accelerate_changes_nothing(server, pictures, tmp_path, recipe, change):
    arguments = [
        *["train", recipe, f"data.path={pictures}", f"train.images={IMAGES}"],
        *["train.batch_size=16", "train.precision=fp32", "train.sample_count=4"],
        f"train.{change}",
        *["train.sample_every_images=64", "train.snapshot_every_images=64", "sampling.steps=4"],
        "--out",
    ]
    assert server.run([*arguments, tmp_path / "one"], tmp_path / "said") == [0]
    settings = ["--use_fsdp", "--fsdp_version", "2", "--mixed_precision", "bf16"]
    done = launch(settings, [*arguments, tmp_path / "two"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote the trained stage to") == 1
    assert on_two_processes(tmp_path / "two")
    assert_same_training(tmp_path / "two", tmp_path / "one")
    sheets = [sorted((tmp_path / run / "samples").iterdir()) for run in ("one", "two")]
    assert [sheet.name for sheet in sheets[0]] == [sheet.name for sheet in sheets[1]]


@pytest.mark.slow
def test_bf16_of_sharded_processes_is_that_of_one(server, pictures, tmp_path):
    for run, options in (("one", {}), ("two", {"processes": 2, "sharded": True})):
        arguments = [*command_line(pictures, "train.precision=bf16"), tmp_path / run]
        assert set(server.run(arguments, tmp_path / "said", **options)) == {0}
    (line, held_out), (other_line, other_held_out) = log(tmp_path / "one"), log(tmp_path / "two")
    for key in ("loss", "gradient_norm"):
        assert line[key] == pytest.approx(other_line[key], rel=5e-3), key
    assert held_out["kind"] == other_held_out["kind"] == "validation"
    assert held_out["loss"] == pytest.approx(other_held_out["loss"], rel=5e-3)


@pytest.mark.slow
def test_a_run_goes_on_sharded_or_not(server, pictures, one, tmp_path):
    alone, in_parts = shutil.copytree(one, tmp_path / "one"), tmp_path / "parts"
    sharded = {"processes": 2, "sharded": True}
    assert server.run([*command_line(pictures), in_parts], tmp_path / "said", **sharded) == [0, 0]
    for run, other_way in ((alone, sharded), (in_parts, {})):
        shutil.rmtree(run / f"checkpoints/{IMAGES:012d}")
        codes = server.run([*command_line(pictures), run], tmp_path / "said", **other_way)
        assert set(codes) == {0}
        assert_same_training(run, one)


# ---- errors -------------------------------------------------------------------------------------


def test_processes_that_do_not_divide_the_batch_are_refused_by_one_of_them(
    server, pictures, tmp_path
):
    codes = server.run([*command_line(pictures), tmp_path / "run"], tmp_path / "said", processes=3)
    assert codes == [1, 1, 1]
    assert errors(tmp_path / "said") == [
        "cascade: the batch size must be a multiple of the 3 processes, got 16."
    ]


def test_a_wrong_recipe_is_said_once(server, pictures, tmp_path):
    arguments = [*command_line(pictures, "train.imges=3"), tmp_path / "run"]
    assert server.run(arguments, tmp_path / "said", processes=2) == [2, 1]
    assert len(errors(tmp_path / "said")) == 1


def test_data_that_one_process_cannot_find_ends_all(server, pictures, tmp_path):
    ids = server.start(
        [*command_line(pictures), tmp_path / "run"],
        tmp_path / "said",
        processes=2,
        other_arguments=["data.path=missing"],
    )
    assert [server.wait(process) for process in ids] == [1, 1]
    assert errors(tmp_path / "said") == ["cascade: no data at missing: the folder does not exist."]


def test_processes_that_find_different_images_or_checkpoints_are_refused(
    server, pictures, tmp_path
):
    """As on machines that do not share their disks."""
    more = shutil.copytree(pictures, tmp_path / "more")
    shutil.copy(more / "red" / "0.png", more / "red" / "7.png")
    ids = server.start(
        [*command_line(pictures), tmp_path / "run"],
        tmp_path / "said",
        processes=2,
        other_arguments=[f"data.path={more}"],
    )
    assert [server.wait(process) for process in ids] == [1, 1]
    [line] = errors(tmp_path / "said")
    assert "the processes of this run found 18 to 19 images; all machines need" in line

    assert server.run([*command_line(pictures, images=32), tmp_path / "a"], tmp_path / "x") == [0]
    ids = server.start(
        [*command_line(pictures), tmp_path / "a"],
        tmp_path / "said-2",
        processes=2,
        other_arguments=["--out", tmp_path / "b"],
    )
    assert [server.wait(process) for process in ids] == [1, 1]
    [line] = errors(tmp_path / "said-2")
    assert "found 0 to 32 images seen in the newest checkpoint; all machines need" in line


def test_images_that_one_process_cannot_read_end_all(server, pictures, tmp_path):
    broken = shutil.copytree(pictures, tmp_path / "broken")
    for file in broken.rglob("*.png"):
        file.write_bytes(b"no picture")
    ids = server.start(
        [*command_line(pictures), tmp_path / "run"],
        tmp_path / "said",
        processes=2,
        other_arguments=[f"data.path={broken}"],
    )
    assert [server.wait(process) for process in ids] == [1, 1]
    assert str(broken) in errors(tmp_path / "said")[-1]


def test_broken_images_of_all_processes_count_in_the_order_of_one(server, pictures, tmp_path):
    """In less than an epoch, so that no process meets those of the other."""
    broken = shutil.copytree(pictures, tmp_path / "broken")
    for name in ("blue/0", "blue/3", "red/1", "red/4", "red-dot/2"):
        (broken / f"{name}.png").write_bytes(b"no picture")

    def train(out: str, processes: int, share: float, code: int) -> list[str]:
        values = [
            *command_line(broken, f"data.max_broken_share={share}", images=16),
            tmp_path / out,
        ]
        said = tmp_path / f"{out}.txt"
        assert set(server.run(values, said, processes=processes)) == {code}
        return said.read_text().splitlines()

    def recorded(out: str) -> list[str]:
        file = tmp_path / out / f"checkpoints/{16:012d}/state.json"
        return json.loads(file.read_text())["broken"]

    named = [train(out, processes, 0.3, 0) for out, processes in (("one", 1), ("two", 2))]
    assert len(recorded("one")) > ALWAYS_ALLOWED_IMAGES
    assert recorded("two") == recorded("one")
    for lines in named:
        assert sum("skipping a broken image" in line for line in lines) == len(recorded("one"))
    ends = [train(out, processes, 0.1, 1)[-1] for out, processes in (("three", 1), ("four", 2))]
    assert ends[0] == ends[1]
    assert ends[0].startswith(f"cascade: {len(recorded('one'))} of 18 images are broken")


def test_a_full_disk_of_the_main_process_ends_all(server, pictures, tmp_path):
    ids = server.start(
        [*command_line(pictures), tmp_path / "run"],
        tmp_path / "said",
        processes=2,
        file_size_limit=20_000,
    )
    assert [server.wait(process) for process in ids] == [1, 1]
    [line] = errors(tmp_path / "said")
    assert "cannot write" in line
    assert "File too large" in line


def test_sigterm_to_all_saves_once_and_ends_all_with_0(server, pictures, tmp_path):
    run = tmp_path / "run"
    ids = server.start(
        [*command_line(pictures, images=1_000_000), run], tmp_path / "said", processes=2
    )
    give_up = time.monotonic() + TIMEOUT_S
    while not any((run / "checkpoints").glob("0*")) and time.monotonic() < give_up:
        time.sleep(0.01)
    for process in ids:
        os.kill(process, signal.SIGTERM)
    assert [server.wait(process) for process in ids] == [0, 0]
    assert errors(tmp_path / "said") == []
    saved = max(int(path.name) for path in (run / "checkpoints").iterdir())
    for words in ("cascade: stopping after this step", f"stopped after {saved} images"):
        assert (tmp_path / "said").read_text().count(words) == 1


def test_a_process_that_is_killed_ends_the_other_without_a_traceback(server, pictures, tmp_path):
    run = tmp_path / "run"
    arguments = [*command_line(pictures, images=1_000_000), run]
    left, killed = server.start(arguments, tmp_path / "said", processes=2)
    give_up = time.monotonic() + TIMEOUT_S
    while not any((run / "checkpoints").glob("0*")) and time.monotonic() < give_up:
        time.sleep(0.01)
    os.kill(killed, signal.SIGKILL)
    assert [server.wait(killed), server.wait(left)] == [-signal.SIGKILL, 1]
    assert errors(tmp_path / "said") == []


@pytest.mark.parametrize("key", ["ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"])
def test_other_ways_of_distributing_are_refused(monkeypatch, key):
    monkeypatch.setenv(key, "true")
    with pytest.raises(CascadeError, match=r"training with .* is not supported"):
        make_accelerator()
    assert PartialState().num_processes == 1


# ---- the device ---------------------------------------------------------------------------------


def test_a_run_may_choose_its_device_and_a_later_one_another(monkeypatch):
    monkeypatch.setattr("cascade.training.processes.find_device", torch.device)
    try:
        assert make_accelerator("meta").device == torch.device("meta")
        assert make_accelerator().device == torch.device("meta")
    finally:
        assert make_accelerator("cpu:0").device.type == "cpu"
        assert make_accelerator("cpu").device == torch.device("cpu")
    assert "ACCELERATE_TORCH_DEVICE" not in os.environ


def test_a_launcher_hands_out_the_devices(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(CascadeError, match="gets its device from the launcher"):
        make_accelerator("cuda:1")


def test_the_device_of_the_command_is_recorded(command, pictures, tmp_path):
    done = command(*command_line(pictures, images=16), tmp_path / "run", "--device", "cpu")
    assert done.code == 0, done.err
    (part,) = json.loads((tmp_path / "run" / "about.json").read_text())["parts"]
    assert part["hardware"].startswith("CPU (")
