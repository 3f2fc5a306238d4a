"""What damaged inputs, long runs, kills, full disks, clocks and many visitors do to the commands.

    python benchmarks/robustness.py [PART …] [--folder FOLDER]

Every part but the first starts `cascade` as a user does, with a tiny pipeline of random weights,
since none of this depends on what a model has learnt. Prints one table in Markdown. The parts:

    fuzz       the tests in tests/robustness, all cases
    soak       5,000 small images in one command; its memory after 1,000 and at the end
    disk       a disk that becomes full, and the same command once there is space (needs root)
    kill       SIGKILL and SIGTERM in the middle, then the same command until the end
    read-only  a folder of results that an ordinary user may not write to (needs root)
    clock      a clock that jumps back and forth by a day whenever a file is written
    page       50 visitors of `cascade ui` who upload and upscale at the same time
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from page_visitors import visits
from PIL import Image

from cascade.bulk.ledger import ledger_file
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import CascadeError
from cascade.imaging.picture_reading import read_picture
from cascade.pipeline import CascadePipeline
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space

CHECKOUT = Path(__file__).parents[1]
SIDE_PX = 16
SOAKED, FIRST_LOOK = 5_000, 1_000  # pictures
KILLED, BEFORE_A_KILL = 900, 40
DISK, FULL_DISK_KIB, LARGE_DISK_KIB = 300, 512, 65_536
STEPPED = 60
VISITORS = 50
LOOK_S = 0.05  # between looks at a command
NOBODY = "65534"
READS_ALL = "+dac_read_search"  # so that this user can read a checkout in the folder of root
STEPPING = """
import itertools, os, time
shifts = itertools.cycle((86_400, -86_400, 0))
replace, now, shift = os.replace, time.time, 0

def stepping_replace(source, target):
    global shift
    replace(source, target)
    shift = next(shifts)
    os.utime(target, (now() + shift,) * 2)

os.replace, time.time = stepping_replace, lambda: now() + shift
from cascade.cli.main import run
run()
"""


@dataclass(frozen=True)
class Row:
    """A line of the table: what was tried, and what came of it."""

    part: str
    trial: str
    outcome: str

    def __str__(self) -> str:
        return f"| {self.part} | {self.trial} | {self.outcome} |"


class Place:
    """A folder with pictures, a tiny pipeline x2 and results.

    Args:
        folder: an empty folder.
        count: number of pictures to draw.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.photos, self.out, self.model = folder / "photos", folder / "out", folder / "model"
        self.names = [f"{number:05d}.png" for number in range(count)]
        self.photos.mkdir(parents=True)
        draw = np.random.default_rng(0)
        for name in self.names:
            noise = draw.integers(0, 255, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
            Image.fromarray(noise).save(self.photos / name)
        save_model(self.model)

    def arguments(self) -> list[str]:
        """What follows `cascade`."""
        options = ["--model", self.model, "--device", "cpu", "--quiet"]
        return [str(each) for each in ("upscale", self.photos, "-o", self.out, *options)]

    def command(self) -> list[str]:
        """The command that upscales all pictures."""
        return [sys.executable, "-m", "cascade.cli", *self.arguments()]

    def start(self) -> subprocess.Popen[str]:
        """Start the command."""
        return subprocess.Popen(self.command(), stderr=subprocess.PIPE, text=True, env=variables())

    def run(self, command: Sequence[str] | None = None) -> tuple[int, list[str]]:
        """Run a command to its end; returns its exit code and the lines of its errors."""
        done = subprocess.run(
            command or self.command(), stderr=subprocess.PIPE, text=True, env=variables()
        )
        return done.returncode, done.stderr.splitlines()

    def made(self) -> list[str]:
        """The results that were made, as often as they were."""
        return self._events("made")

    def _events(self, *kinds: str) -> list[str]:
        file = ledger_file(self.out, "upscale")
        lines = file.read_text().splitlines() if file.exists() else []
        events = [json.loads(line) for line in lines]
        return [line["output"] for line in events if line["event"] in kinds]

    def verdict(self) -> str:
        """Which results are whole, were made twice, or left something behind."""
        whole = sum(is_whole(self.out / name) for name in self.names)
        twice = sum(count > 1 for count in Counter(self.made()).values())
        names = {path.name for path in self.out.iterdir() if not path.name.startswith(".cascade-")}
        strays = names - set(self.names)
        return (
            f"{whole:,} of {len(self.names):,} results whole, {twice} made twice, {len(strays)} "
            "other files left"
        )


def variables() -> dict[str, str]:
    """The environment of the commands."""
    return os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}


def save_model(folder: Path) -> None:
    """Save a tiny pipeline 16 -> 32 px with random weights."""
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        Contract(Space(size_px=2 * SIDE_PX), (LowResolution(size_px=SIDE_PX),)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1, "patch_size": 4},
        sampling=SamplingSettings(steps=1),
        embedding_dim=16,
    )
    CascadePipeline.from_stages({"upsampler": stage}).save_pretrained(folder)


def is_whole(path: Path) -> bool:
    """Whether a result is there and can be decoded."""
    try:
        return read_picture(path).size == (2 * SIDE_PX, 2 * SIDE_PX)
    except CascadeError:
        return False


def rss_mib(process: int) -> float:
    """The main memory that a process has now; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    texts = dict(line.split(":", 1) for line in lines)
    return int(texts.get("VmRSS", "0").split()[0]) / 2**10


# ---- the parts ----------------------------------------------------------------------------------


def fuzz(folder: Path) -> list[Row]:
    """Run the tests of damaged inputs, and count what they tried."""
    report = folder / "report.xml"
    words = [sys.executable, "-m", "pytest", "-q", str(CHECKOUT / "tests" / "robustness")]
    options = ["-m", "slow", "-k", "many", f"--junitxml={report}", "-o", "junit_family=xunit1"]
    subprocess.run([*words, *options], cwd=CHECKOUT, env=variables(), stdout=sys.stderr)
    rows = []
    for case in ElementTree.parse(report).iter("testcase"):
        values = {each.get("name"): each.get("value") for each in case.iter("property")}
        door = (case.get("name") or "").partition("[")[2].rstrip("]")
        outcome = f"{values.get('results')} results, {values.get('refusals')} refused in a line"
        if case.find("failure") is not None or case.find("error") is not None:
            outcome = "FAILED"
        rows.append(Row("fuzz", f"{door}: {values.get('cases')} cases", outcome))
    return rows


def soak(folder: Path) -> list[Row]:
    """Upscale many pictures, and look at the memory of the command."""
    place = Place(folder, SOAKED)
    file = ledger_file(place.out, "upscale")
    begin, count, looks = time.monotonic(), 0, []
    process = place.start()
    while process.poll() is None:
        if count < SOAKED:  # the end of a process reads in more of the libraries
            count = file.read_bytes().count(b'"made"') if file.exists() else 0
            looks.append((count, rss_mib(process.pid)))
        time.sleep(LOOK_S)
    early = next(look for look in looks if look[0] >= FIRST_LOOK)
    last = next(look for look in reversed(looks) if look[0] < SOAKED)
    minutes = (time.monotonic() - begin) / 60
    trial = f"{SOAKED:,} images of {SIDE_PX} px, {minutes:.1f} min"
    memory = " and ".join(f"{mib:.0f} MiB after {number:,}" for number, mib in (early, last))
    return [
        Row("soak", trial, f"exit code {process.returncode}, {place.verdict()}; memory {memory}")
    ]


def disk(folder: Path) -> list[Row]:
    """Fill a small disk, then give it space and run the command again."""
    if os.geteuid() or shutil.which("unshare") is None:
        return [Row("disk", "a full disk", "not tried: only root can mount one")]
    place = Place(folder, DISK)
    place.out.mkdir()
    script = (
        f'mount -t tmpfs -o size={FULL_DISK_KIB}k none out && "$@" 2>first; echo $? >code; '
        f'cp -a out before; mount -o remount,size={LARGE_DISK_KIB}k out; "$@"; code=$?; '
        "cp -a out kept; exit $code"
    )
    words = ["unshare", "--mount", "sh", "-c", f"cd {folder}; {script}", "sh", *place.command()]
    code, _ = place.run(words)
    first = int((folder / "code").read_text())
    place.out.rmdir()
    place.out = folder / "before"
    whole = sum(is_whole(place.out / name) for name in place.names)
    cut = sum((place.out / name).exists() for name in place.names) - whole
    lines = (folder / "first").read_text().splitlines()
    place.out = folder / "kept"
    return [
        Row(
            "disk",
            f"{DISK} images on a disk of {FULL_DISK_KIB} KiB",
            f"exit code {first}, {whole} results whole, {cut} cut off: `{_told(lines, folder)}`",
        ),
        Row("disk", "the same command with space", f"exit code {code}, {place.verdict()}"),
    ]


def kill(folder: Path) -> list[Row]:
    """End the command twice, and run it to its end."""
    place = Place(folder, KILLED)
    rows = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        before = len(place.made())
        process = place.start()
        while process.poll() is None and len(place.made()) < before + BEFORE_A_KILL:
            time.sleep(LOOK_S)
        process.send_signal(number)
        code = process.wait()
        outcome = f"exit code {code}, {len(place.made())} results noted"
        rows.append(Row("kill", f"{number.name} among {KILLED} images", outcome))
    code, _ = place.run()
    return [*rows, Row("kill", "the same command", f"exit code {code}, {place.verdict()}")]


def read_only(folder: Path) -> list[Row]:
    """Write as an ordinary user into a folder of root."""
    if os.geteuid() or shutil.which("setpriv") is None:
        return [Row("read-only", "a folder of root", "not tried: only root can become another")]
    place = Place(folder, 2)
    place.out.mkdir()
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    rights = [f"--inh-caps={READS_ALL}", f"--ambient-caps={READS_ALL}"]
    code, lines = place.run(["setpriv", *user, *rights, *place.command()])
    count = len(list(place.out.iterdir()))
    outcome = f"exit code {code}, {count} files written: `{_told(lines, folder)}`"
    return [Row("read-only", "a folder of root, as an ordinary user", outcome)]


def clock(folder: Path) -> list[Row]:
    """Upscale while the clock jumps, and again."""
    place = Place(folder, STEPPED)
    words = [sys.executable, "-c", STEPPING, *place.arguments(), "--compare"]
    rows = []
    sheets: dict[str, int] = {}
    for trial in (f"±1 day at each of {STEPPED} results with sheets", "the same command again"):
        code, _ = place.run(words)
        before, sheets = (
            sheets,
            {path.name: path.stat().st_ino for path in (place.out / "compare").glob("*.jpg")},
        )
        new = len(sheets.items() - before.items())
        outcome = f"exit code {code}, {len(place.made())} results made in all, {new} sheets now"
        rows.append(Row("clock", trial, outcome))
    shutil.rmtree(place.out / "compare")
    return [*rows, Row("clock", "both", place.verdict())]


def page(folder: Path) -> list[Row]:
    """Let many visitors of the page upload and upscale at once."""
    place = Place(folder, VISITORS)
    words = [sys.executable, "-m", "cascade.cli", "ui", str(place.model), "--device", "cpu"]
    temporary = folder / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=variables() | {"TMPDIR": str(temporary)}
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().partition(" at ")[2].partition(";")[0]
        counts = visits(address, [place.photos / name for name in place.names])
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    left = len(list(temporary.glob("cascade-ui-*")))
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    outcome = f"{told}; exit code {code} after SIGTERM, {left} folders left"
    return [Row("page", f"{VISITORS} visitors upload and upscale at once", outcome)]


def _told(lines: Sequence[str], folder: Path) -> str:
    """All lines of errors, which should be one, without the folder of the trial."""
    return " / ".join(lines).replace(f"{folder}/", "")


PARTS: dict[str, Callable[[Path], list[Row]]] = {
    "fuzz": fuzz, "soak": soak, "disk": disk, "kill": kill, "read-only": read_only,
    "clock": clock, "page": page,
}  # fmt: skip


def main() -> None:
    """Parse the command line, try the parts that it names, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}.")
    print("| part | trial | outcome |\n|---|---|---|", flush=True)
    for part in options.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix=f"cascade-{part}-", dir=options.folder) as folder:
            os.chmod(folder, 0o755)
            for row in PARTS[part](Path(folder)):
                print(row, flush=True)


if __name__ == "__main__":
    main()
