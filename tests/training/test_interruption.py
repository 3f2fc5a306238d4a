"""Runs of `cascade train` that are ended from outside, and go on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade.cli.progress import TrainingProgress
from cascade.training.checkpoint import checkpoints
from cascade.training.run_lock import RunLock

IMAGES = 448
BATCH_SIZE = 16
EVERY, SAMPLE_EVERY = 64, 96
KILLS = 5
MANY_KILLS = 50
TIMES = ("images_per_s", "seconds")


def command_line(data: object, *overrides: str, images: int = IMAGES) -> list[str]:
    """All but the folder of the run. What it writes falls on the same step only now and then."""
    return [
        "train",
        "tiny-16",
        f"data.path={data}",
        f"train.images={images}",
        f"train.batch_size={BATCH_SIZE}",
        "train.warmup_images=64",
        "train.precision=fp32",
        f"train.checkpoint_every_images={EVERY}",
        f"train.sample_every_images={SAMPLE_EVERY}",
        "train.sample_count=4",
        "train.snapshot_every_images=144",
        "sampling.steps=4",
        *overrides,
        "--out",
    ]


def everything(run: Path) -> dict[str, object]:
    """All that a finished run leaves, without the times that it took."""
    files = [
        path
        for name in ("checkpoints", "stage", "averages", "samples")
        for path in (run / name).rglob("*")
        if path.is_file()
    ]
    contents: dict[str, object] = {str(file.relative_to(run)): file.read_bytes() for file in files}
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    contents["log"] = [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    return contents


def leftovers(run: Path) -> list[str]:
    return [path.name for path in run.rglob(".*") if path.suffix in (".tmp", ".old")]


def assert_same(run: Path, whole: dict[str, object]) -> None:
    contents = everything(run)
    assert contents.keys() == whole.keys()
    assert [name for name in whole if contents[name] != whole[name]] == []
    assert leftovers(run) == []


@pytest.fixture(scope="module")
def whole(server, pictures, shards, tmp_path_factory) -> Callable[..., dict[str, object]]:
    """A function that makes a run without a gap, once for each way to use processes."""
    runs: dict[tuple[int, bool], dict[str, object]] = {}

    def make(processes: int = 1, *, sharded: bool = False) -> dict[str, object]:
        way = (processes, sharded)
        if way not in runs:
            out, arguments = tmp_path_factory.mktemp("whole"), command_line(pictures)
            codes = server.run([*arguments, out], out / "said", processes, sharded=sharded)
            assert codes == [0] * processes, (out / "said").read_text()
            runs[way] = everything(out)
            assert len(runs[way]) > 20
        return runs[way]

    return make


# ---- killed -------------------------------------------------------------------------------------


def is_writing(run: Path) -> bool:
    return any((run / "checkpoints").glob(".*.tmp/*"))


def is_sampling(run: Path) -> bool:
    return bool(checkpoints(run / "checkpoints")) and not any((run / "samples").glob("*.png"))


def wait_for_moment(draw: random.Random, run: Path, images: float) -> None:
    """Until a run is about so far, and then a random time more or into what takes time."""
    give_up = time.monotonic() + 60
    while reached(run) + EVERY <= images and time.monotonic() < give_up:
        time.sleep(0.001)
    end = time.monotonic() + draw.uniform(0, 0.1 if images > EVERY else 0.5)
    under_way = draw.choice([is_writing, is_sampling, None, None])
    while time.monotonic() < end and not (under_way and under_way(run)):
        if lacks_samples(run):  # never, as long as the checkpoint of a step comes last
            return
        time.sleep(0.001)


def lacks_samples(run: Path) -> bool:
    images = reached(run)
    sheet = run / "samples" / f"{images:012d}.png"
    return images > 0 and images % SAMPLE_EVERY == 0 and not sheet.exists()


def reached(run: Path) -> int:
    return max((int(path.name) for path in checkpoints(run / "checkpoints")), default=0)


def kill_and_go_on(
    server, arguments: list[object], *, processes: int, kills: int, sharded: bool = False
) -> int:
    """Kill a run at random moments, further on each time, and let it end; tells how often."""
    out = Path(str(arguments[-1]))
    said = out.with_suffix(".said")
    draw = random.Random(kills + processes)
    killed = 0
    for number in range(kills):
        ids = server.start(arguments, said, processes, sharded=sharded)
        wait_for_moment(draw, out, draw.uniform(0, 0.8 * IMAGES * (number + 1) / kills))
        draw.shuffle(ids)
        for process in ids:  # one first, and its peers when they may have noticed
            os.kill(process, signal.SIGKILL)
            time.sleep(draw.uniform(0, 0.05))
        codes = [server.wait(process) for process in ids]
        killed += codes[0] == -signal.SIGKILL
    codes = server.run(arguments, said, processes, sharded=sharded)
    assert codes == [0] * processes, said.read_text()
    return killed


@pytest.mark.parametrize(
    ("source", "workers", "processes"),
    [
        pytest.param("folder", 0, 1, marks=pytest.mark.slow),
        ("shards", 0, 2),
        pytest.param("shards", 2, 1, marks=pytest.mark.slow),
        pytest.param("folder", 2, 2, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_killed_at_random_leaves_what_one_without_a_gap_does(
    server, pictures, shards, whole, tmp_path, source, workers, processes
):
    data = {"folder": pictures, "shards": shards}[source]
    arguments = [*command_line(data, f"train.workers={workers}"), tmp_path / "run"]
    killed = kill_and_go_on(server, arguments, processes=processes, kills=KILLS)
    assert killed > KILLS / 2  # on a busy machine it may be done before a kill
    assert_same(tmp_path / "run", whole(processes))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("source", ["folder", "shards"])
def test_a_run_that_is_killed_fifty_times_leaves_what_one_without_a_gap_does(
    server, pictures, shards, whole, tmp_path, source, workers, processes
):
    data = {"folder": pictures, "shards": shards}[source]
    arguments = [*command_line(data, f"train.workers={workers}"), tmp_path / "run"]
    killed = kill_and_go_on(server, arguments, processes=processes, kills=MANY_KILLS)
    assert killed > MANY_KILLS / 2
    assert_same(tmp_path / "run", whole(processes))


@pytest.mark.slow
def test_a_sharded_run_that_is_killed_leaves_what_one_without_a_gap_does(
    server, pictures, whole, tmp_path
):
    arguments = [*command_line(pictures), tmp_path / "run"]
    killed = kill_and_go_on(server, arguments, processes=2, kills=2 * KILLS, sharded=True)
    assert killed > KILLS
    assert_same(tmp_path / "run", whole(2, sharded=True))


@pytest.mark.slow
def test_a_kill_while_modules_are_imported_does_no_harm(server, pictures, whole, tmp_path):
    arguments = [*command_line(pictures), tmp_path / "run"]
    for part in range(8):
        process = subprocess.Popen(
            [sys.executable, "-m", "cascade.cli", *map(str, arguments)],
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.7 * part)
        process.kill()
        process.wait()
    assert server.run(arguments, tmp_path / "said") == [0]
    assert_same(tmp_path / "run", whole())


# ---- ended politely -----------------------------------------------------------------------------


@pytest.fixture
def own_handlers():
    """Handlers of SIGTERM and SIGINT, which a run must put back."""

    def fail(number, frame) -> None:
        pytest.fail("the signal did not reach the trainer")

    mine = {number: signal.signal(number, fail) for number in (signal.SIGTERM, signal.SIGINT)}
    yield fail
    for number, handler in mine.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_saves_says_so_and_ends_with_0(
    command, pictures, whole, tmp_path, monkeypatch, own_handlers, number
):
    def send_signal(progress, values) -> None:
        os.kill(os.getpid(), number)

    arguments = [*command_line(pictures), tmp_path]
    monkeypatch.setattr(TrainingProgress, "update", send_signal)
    stopped = command(*arguments)
    assert stopped.code == 0
    assert "stopped after 160 images; repeat the command to resume." in stopped.out
    assert int(checkpoints(tmp_path / "checkpoints")[-1].name) == 160
    assert (tmp_path / "stage" / "stage.json").is_file()
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is own_handlers
    monkeypatch.undo()
    assert command(*arguments).code == 0
    assert_same(tmp_path, whole())


# ---- the folder of a run ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _begun(server, pictures, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("begun")
    assert server.run([*command_line(pictures, images=64), out], out / "said") == [0]
    return out


@pytest.fixture
def begun(_begun, tmp_path) -> Path:
    """A run of 64 images that can go on."""
    return shutil.copytree(_begun, tmp_path / "begun")


def errors(said: Path) -> list[str]:
    """Lines that are neither the progress line nor news."""
    lines = [line for line in said.read_text().splitlines() if line.startswith("cascade: ")]
    news = ("cascade: resuming ", "cascade: with another number of images ")
    return [line for line in lines if not line.startswith(news)]


def test_a_full_disk_ends_the_run_with_one_line_and_takes_nothing_away(
    server, pictures, begun, tmp_path
):
    before = {file: file.read_bytes() for file in (begun / "checkpoints").rglob("*.*")}
    arguments = [*command_line(pictures, "train.sample_every_images=0"), begun]
    [process] = server.start(arguments, tmp_path / "said", file_size_limit=20_000)
    assert server.wait(process) == 1
    [line] = errors(tmp_path / "said")
    assert line.startswith(f"cascade: cannot write {begun / 'checkpoints' / f'{128:012d}'}: ")
    assert "File too large" in line
    assert "Traceback" not in (tmp_path / "said").read_text()
    assert before == {file: file.read_bytes() for file in (begun / "checkpoints").rglob("*.*")}
    assert leftovers(begun) == []


def test_a_checkpoint_of_another_format_is_refused_in_one_line(server, pictures, begun, tmp_path):
    state = begun / "checkpoints" / f"{64:012d}" / "state.json"
    values = json.loads(state.read_text())
    values["format"] = 1
    state.write_text(json.dumps(values))
    assert server.run([*command_line(pictures), begun], tmp_path / "said") == [1]
    [line] = errors(tmp_path / "said")
    assert line.startswith(f"cascade: checkpoint {state.parent} has format 1, but this version")
    assert json.loads(state.read_text()) == values


def test_two_processes_do_not_train_in_one_folder(server, pictures, begun, tmp_path):
    lock = RunLock(begun)
    (begun / "checkpoints" / ".000000000128.x.tmp").mkdir()
    assert server.run([*command_line(pictures), begun], tmp_path / "said") == [1]
    [line] = errors(tmp_path / "said")
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    assert line.startswith(f"cascade: another process is training in {begun} ({owner}); stop it")
    assert leftovers(begun) == [".000000000128.x.tmp"]  # it may be writing
    lock.release()


def test_what_killed_writers_left_is_removed_or_put_back(begun):
    (begun / "checkpoints" / ".000000000128.x.tmp").mkdir()
    (begun / "samples" / ".000000000096.png.1.tmp").touch()
    (begun / ".stage.y.old").mkdir()
    (begun / "stage").rename(begun / ".stage.y.old" / "stage")  # killed between the two renames
    (begun / ".stage-0.080.z.tmp").mkdir()  # of `cascade ema`, which may be under way
    RunLock(begun)
    assert leftovers(begun) == [".stage-0.080.z.tmp"]
    assert (begun / "stage" / "stage.json").is_file()
