"""What an accelerator does: its tests, images/s beside plain diffusers, and one JSON file.

Runs `pytest -m gpu`, then times the same network in `CascadePipeline` and in diffusers'
`DDIMPipeline` in turns, and the bundled pipelines, in each precision. It stops before the time is
up, and says what it left out. On the CPU, `--device cpu --quick` proves its logic.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import diffusers
import torch
from sampling import FULL, QUICK, Size, make_stage, our_images, pipeline_images

import cascade
from cascade import CascadePipeline
from cascade.devices import best_device, find_device, has_fast_bf16, wait_for
from cascade.errors import CascadeError

EPILOG = """examples:
  python benchmarks/accelerator.py --out accelerator.json
  python benchmarks/accelerator.py --device cpu --quick
"""
CHECKOUT = Path(__file__).parents[1]
TESTS = CHECKOUT / "tests" / "accelerator"
LIMIT_S = 460.0  # below 8 minutes
TESTS_SHARE = 0.6  # of the time, at most
ROUNDS = 3
DTYPES = {"fp32": None, "bf16": None, "fp16": torch.float16}  # of weights; None for float32
LARGE = Size(size_px=256, images=32, steps=50, rounds=ROUNDS)
UPSCALED_PX = 512  # side of the picture that is upscaled
GENERATED = 64  # images of `emoji-1024`, at 256 px


class Clock:
    """The time that is left."""

    def __init__(self, limit_s: float) -> None:
        self._end_s = time.monotonic() + limit_s

    @property
    def left_s(self) -> float:
        """Seconds until the limit."""
        return self._end_s - time.monotonic()


def main() -> None:
    """Parse the command line and run all parts."""
    arguments = _parse()
    device = best_device() if arguments.device is None else find_device(arguments.device)
    clock = Clock(arguments.limit_s)
    report: dict[str, Any] = {"machine": describe(device), "left_out": []}
    print(json.dumps(report["machine"], indent=2), flush=True)
    parts: dict[str, Callable[[], Any]] = {
        "tests": lambda: run_tests(device, TESTS_SHARE * clock.left_s),
        "loops": lambda: list(compare_loops(device, clock, quick=arguments.quick)),
        "bundled": lambda: list(time_bundled(device, clock, quick=arguments.quick)),
    }
    for name, part in parts.items():
        if name in arguments.skip or clock.left_s <= 0:
            report["left_out"].append(name)
            continue
        report[name] = part()
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"left out: {', '.join(report['left_out']) or 'nothing'}; figures in {arguments.out}")
    sys.exit(report.get("tests", {}).get("failed", 0) > 0)


def describe(device: torch.device) -> dict[str, Any]:
    """The machine and the versions."""
    facts: dict[str, Any] = {
        "device": str(device),
        "name": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "cascade": cascade.__version__,
        "fast_bf16": has_fast_bf16(device),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }
    if device.type == "cuda":
        facts["name"] = torch.cuda.get_device_name(device)
        facts["memory_gib"] = round(torch.cuda.mem_get_info(device)[1] / 2**30, 1)
    return facts


# ---- tests --------------------------------------------------------------------------------------


def run_tests(device: torch.device, limit_s: float) -> dict[str, Any]:
    """Run `pytest -m gpu`; the counts, and the names and messages of failures."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", f"--junitxml={file}", TESTS]
        environment = os.environ | {"CASCADE_TEST_DEVICE": str(device)}
        start = time.monotonic()
        try:
            subprocess.run(command, cwd=CHECKOUT, env=environment, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            return {"failed": 1, "failures": {"pytest": f"took more than {limit_s:.0f} s"}}
        counts = read_results(file)
    return counts | {"seconds": round(time.monotonic() - start, 1)}


def read_results(file: Path) -> dict[str, Any]:
    """Counts and failures in a JUnit file of pytest."""
    cases = list(ElementTree.parse(file).iter("testcase")) if file.is_file() else []
    failures = {}
    for case in cases:
        for kind in ("failure", "error"):
            if (fault := case.find(kind)) is not None:
                failures[str(case.get("name"))] = str(fault.get("message", ""))[:300]
    skipped = sum(case.find("skipped") is not None for case in cases)
    if not cases:
        failures["pytest"] = "ran no tests"
    return {
        "passed": len(cases) - skipped - len(failures) if cases else 0,
        "skipped": skipped,
        "failed": len(failures),
        "failures": failures,
    }


# ---- speed --------------------------------------------------------------------------------------


def compare_loops(device: torch.device, clock: Clock, *, quick: bool) -> Iterator[dict[str, Any]]:
    """Time our loop and that of diffusers in turns, for each size and precision."""
    for size in (QUICK,) if quick else (FULL, LARGE):
        stage = make_stage(size.size_px).to(device)
        for precision in ("fp32", "bf16"):
            if clock.left_s <= 0 or (precision == "bf16" and not has_fast_bf16(device)):
                continue
            loops = {
                "ours": partial(our_images, stage, size, guidance=1, precision=precision),
                "diffusers": partial(pipeline_images, stage, size, precision=precision),
            }
            images = {name: loop() for name, loop in loops.items()}  # which warms both up
            seconds = {name: [] for name in loops}
            for _ in range(ROUNDS):
                for name, loop in loops.items():
                    seconds[name].append(timed(loop, device))
            rates = {n: round(size.images / statistics.median(s), 3) for n, s in seconds.items()}
            result = {
                **{"size_px": size.size_px, "images": size.images, "steps": size.steps},
                "precision": precision,
                "images_per_s": rates,
                "ratio": round(rates["ours"] / rates["diffusers"], 3),
                "difference": float((images["ours"] - images["diffusers"]).abs().max()),
            }
            print(
                f"{size.images} images of {size.size_px} px, {size.steps} steps, {precision}: "
                f"ours {rates['ours']:.2f}, diffusers {rates['diffusers']:.2f} images/s",
                flush=True,
            )
            yield result


def time_bundled(device: torch.device, clock: Clock, *, quick: bool) -> Iterator[dict[str, Any]]:
    """Time `emoji-1024` in images/s and `photo-x4` in megapixels/s, for each precision."""
    count, side_px = (1, 64) if quick else (GENERATED, UPSCALED_PX)
    steps = {"steps": 1} if quick else {}
    picture = torch.rand(3, side_px, side_px, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch: dict[str, Any] = {"num_images": count, "batch_size": count, "output_type": "pt"}
    batch["stop_at"] = "upsampler_256"
    work: dict[str, tuple[str, float, Callable[..., Any]]] = {
        "emoji-1024": ("images/s", count, partial(CascadePipeline.__call__, seed=0, **batch)),
        "photo-x4": (
            "megapixels/s",
            (4 * side_px) ** 2 / 1e6,
            partial(CascadePipeline.upscale, image=picture, scale=4),
        ),
    }
    for name, (unit, amount, run) in work.items():
        for precision, dtype in DTYPES.items():
            is_possible = {
                "fp32": True,
                "bf16": has_fast_bf16(device),
                "fp16": device.type != "cpu",
            }
            if clock.left_s <= 0 or not is_possible[precision]:
                continue
            pipeline = CascadePipeline.from_pretrained(name, dtype=dtype).to(device)
            pipeline.set_progress_bar_config(disable=True)
            own = {} if precision == "fp16" else {"precision": precision}  # else by the weights
            call = partial(run, pipeline, **steps, **own)
            call()  # warms up
            peak = Peak(device)
            seconds = statistics.median(timed(call, device) for _ in range(1 if quick else ROUNDS))
            rate = amount / seconds
            print(f"{name}, {precision}: {rate:.2f} {unit}, {peak.text}", flush=True)
            yield {
                **{"pipeline": name, "precision": precision, "unit": unit},
                **{"rate": round(rate, 3), "peak_mib": peak.mib},
            }


class Peak:
    """The most memory that CUDA has given out since this object was made."""

    def __init__(self, device: torch.device) -> None:
        self._counts = device.type == "cuda"
        if self._counts:
            torch.cuda.reset_peak_memory_stats(device)

    @property
    def mib(self) -> int | None:
        """In MiB; None on a device that does not count."""
        return round(torch.cuda.max_memory_allocated() / 2**20) if self._counts else None

    @property
    def text(self) -> str:
        """The same in words."""
        return "memory not counted" if self.mib is None else f"at most {self.mib} MiB"


def timed(call: Callable[[], Any], device: torch.device) -> float:
    """The seconds that a call takes until the device is done."""
    wait_for(device)
    start = time.perf_counter()
    call()
    wait_for(device)
    return time.perf_counter() - start


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", help="such as cuda or cpu (default: the best one)")
    parser.add_argument("--out", type=Path, default=Path("accelerator.json"), help="the JSON file")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, to prove the logic")
    parser.add_argument(
        "--limit-s", type=float, default=LIMIT_S, help=f"seconds in all (default {LIMIT_S:.0f})"
    )
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=("tests", "loops", "bundled"), help="parts"
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except CascadeError as error:
        sys.exit(str(error))
