"""What many images cost beside drawing them: files per second of listing, claiming and joining.

    find            list all inputs
    name            name their results
    list a part     both for one of 100 parts, which finds all inputs and names its own results
    list shards     find and name images in shards of 1,000; at most 10 shards
    claim           take and give back the lock of a job
    note            write a line into the ledger
    work            the whole loop around images whose results are written, but not drawn
    work on shards  the same for the images in these shards, with packing
    work again      the same as `work` when all results exist
    join            check 100 parts against their files, and merge their ledgers

Files are empty or tiny and nothing is drawn; everything else is the code that the commands run, in
one process. Rates count processor time, which other work on the machine disturbs less than wall
time; a slow file system comes on top. Files go to --folder, by default into memory where Linux has
a place for it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cascade.bulk.claims import Claims
from cascade.bulk.inputs import InputListing
from cascade.bulk.jobs import Job, Plan, plan_jobs
from cascade.bulk.joining import join_parts
from cascade.bulk.ledger import Ledger, ledger_file
from cascade.bulk.method import Method
from cascade.bulk.parts import Part, Slice
from cascade.bulk.searching import find_pictures
from cascade.bulk.shards import plan_shards
from cascade.bulk.work import Bulk
from cascade.data.shard_writing import write_tar
from cascade.sampling.settings import SamplingSettings

EPILOG = """examples:
  python benchmarks/scale.py
  python benchmarks/scale.py --files 10000 100000 1000000 --longest-s 60
"""
PARTS = 100
GROUP = 1000  # files of a folder or shard
MOST_SHARDS = 10  # that are worked on
MEMORY = Path("/dev/shm")
SETTINGS = {
    "command": "upscale",
    "model": "none",
    "weights": "0" * 16,
    "stages": {"upsampler": SamplingSettings(steps=8).to_dict()},
    "scale": 4.0,
}
ID = "0" * 12  # of these settings
ROWS = (
    "find", "name", "list a part", "list shards", "claim", "note", "work", "work on shards",
    "work again", "join",
)  # fmt: skip


def main() -> None:
    """Measure each number of files, and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, nargs="+", default=[10**4, 10**5])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW")
    parser.add_argument("--folder", type=Path, default=MEMORY if MEMORY.is_dir() else None)
    parser.add_argument(
        "--longest-s",
        type=float,
        default=60,
        help="leave out what would take longer than this, by the rate of the smaller number",
    )
    options = parser.parse_args()
    columns: list[Rates] = []
    for count in options.files:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="scale-") as folder:
            earlier = columns[-1].rates if columns else {}
            columns.append(Rates(options.rows, earlier, options.longest_s))
            measure(columns[-1], count, Path(folder))
    print(f"{'files/s':16}" + "".join(f"{count:>12,}" for count in options.files))
    for row in options.rows:
        print(f"{row:16}" + "".join(f"{column.text(row):>12}" for column in columns))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak_mib:,.0f} MiB")


class Rates:
    """Files per second of each row, for one number of files.

    Args:
        rows: the rows to measure.
        earlier: the rates of a smaller number.
        longest_s: rows that would take longer, by these rates, are left out.
    """

    def __init__(self, rows: Sequence[str], earlier: dict[str, float], longest_s: float) -> None:
        self.rates: dict[str, float] = {}
        self._rows = rows
        self._earlier = earlier
        self._longest_s = longest_s

    def measure(self, row: str, count: int, run: Callable[[], object]) -> None:
        """Run a row, unless it is left out or would take too long."""
        known = self._earlier.get(row, 0.0 if self._earlier else math.inf)
        if row not in self._rows or known == 0 or count / known > self._longest_s:
            return
        begin = time.process_time()
        run()
        self.rates[row] = count / (time.process_time() - begin)
        print(f"{row}: {self.text(row)} files/s of {count:,}", file=sys.stderr)

    def text(self, row: str) -> str:
        """The rate of a row, or a dash."""
        return f"{self.rates[row]:,.0f}" if row in self.rates else "-"


def measure(rates: Rates, count: int, folder: Path) -> None:
    """Measure all rows.

    Args:
        rates: where the rates go.
        count: number of files.
        folder: an empty folder.
    """
    inputs, shards = folder / "in", folder / "shards"
    out, other = folder / "out", folder / "out-of-shards"
    write_inputs(inputs, shards, count)
    out.mkdir()
    other.mkdir()
    listing, plan, part = InputListing(), Plan(), Part(PARTS, 1)

    def find() -> None:
        nonlocal listing
        listing = find_pictures([str(inputs)], results=out)

    def name() -> None:
        nonlocal plan
        plan = plan_jobs(listing.pictures, out)

    def list_part() -> None:
        plan_jobs(find_pictures([str(inputs)], results=out, part=part).pictures, out)

    def list_shards() -> None:
        nonlocal plan
        own = find_pictures([str(each) for each in sorted(shards.iterdir())[:MOST_SHARDS]])
        packed = plan_shards(own.shards, other)[0]
        plan = Plan([job for shard in packed for job in shard.jobs], shards=packed)

    rates.measure("find", count, find)
    rates.measure("name", count, name)
    rates.measure("list a part", count, list_part)
    listing = listing if listing.pictures else find_pictures([str(inputs)])
    jobs = [Job(each, out / each.place, str(each.place), 0) for each in listing.pictures]
    rates.measure("claim", count, lambda: claim(jobs, folder))
    rates.measure("note", count, lambda: note(jobs, folder))
    rates.measure("work", count, lambda: work(plan, out))
    if "work" in rates.rates:
        rates.measure("work again", count, lambda: work(plan, out))
    in_shards = min(count, MOST_SHARDS * GROUP)
    rates.measure("list shards", in_shards, list_shards)
    rates.measure("work on shards", in_shards, lambda: work(plan, other))
    write_parts(jobs, inputs)
    rates.measure("join", count, lambda: join_parts([inputs], "upscale").merge())


def write_inputs(folder: Path, shards: Path, count: int) -> None:
    """Write empty files with the names of pictures, and shards of as many members."""
    members = [(f"{number:04}.png", b"") for number in range(GROUP)]
    shards.mkdir()
    for first in range(0, count, GROUP):
        place, shard = folder / f"{first // GROUP:04}", shards / f"{first // GROUP:04}.tar"
        place.mkdir(parents=True)
        for number in range(first, min(first + GROUP, count)):
            (place / f"{number:07}.png").touch()
        if first == 0:
            write_tar(shard, members)
        else:
            os.link(shards / "0000.tar", shard)


def claim(jobs: Sequence[Job], folder: Path) -> None:
    """Take and give back the lock of each job."""
    claims = Claims(folder / "lock")
    claims.join()
    claims.let_in()
    for job in jobs:
        assert claims.take(job.key)
        claims.give_back(job.key)
    claims.close()


def note(jobs: Sequence[Job], folder: Path) -> None:
    """Write a line about each job."""
    ledger = Ledger(folder / "ledger")
    for job in jobs:
        ledger.add("made", job.key, ID, values_of(job))


def values_of(job: Job) -> dict[str, object]:
    """The values of a line about a job, as if its empty input were its result."""
    record = {**SETTINGS, "seed": 0, "input_sha256": "0" * 64, "size_px": [1, 1]}
    stamp = [0, time.time_ns(), time.time_ns()]
    return {
        "input": job.source.name,
        "input_stamp": stamp[:2],
        "result_stamp": stamp,
        "result_sha256": "0" * 64,
        "record": record,
        "seconds": 0.0,
        "lost": [],
    }


def work(plan: Plan, out: Path) -> None:
    """Run the loop of the bulk commands with empty results."""

    def make_file(job: Job, progress: object, on_remark: object) -> tuple[tuple[int, int], int]:
        job.output.parent.mkdir(parents=True, exist_ok=True)
        job.output.touch()
        return (1, 1), 1

    method = Method(
        command="upscale",
        description="upscaled",
        make=lambda pictures, seeds, progress: [],
        settings=SETTINGS,
        work=math.prod,
        make_file=make_file,
    )
    loop = Bulk(plan, method, out)
    loop.run()
    assert loop.outcome().exit_code == 0


def write_parts(jobs: Sequence[Job], folder: Path) -> None:
    """Write the ledgers of parts that are done, as if each input were its own result."""
    for number in range(PARTS):
        part, own = Part(PARTS, number + 1), jobs[number::PARTS]
        file = ledger_file(folder, "upscale", part)
        head = Slice(part, len(jobs), ID).head(SETTINGS, [])
        Ledger(file).start_round(head, [(job.key, ID, job.source.name) for job in own])
        with file.open("a", encoding="utf-8") as lines:
            for job in own:
                line = {"event": "made", "output": job.key, "settings_id": ID, **values_of(job)}
                lines.write(f"{json.dumps(line)}\n")


if __name__ == "__main__":
    main()
