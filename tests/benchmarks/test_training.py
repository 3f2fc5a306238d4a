"""Facts about benchmarks/training.py: the shared network, the clock, the output."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training.py"
sys.path.insert(0, str(SCRIPT.parent))


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("training_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


benchmark = load_script()
RESULT = {
    "images_per_s": 10.0,
    "cpu_s_per_image": 0.2,
    "peak_mib": 900.0,
    "parameters_m": 1.5,
    "forward_gflop": 2.5,
    "precision": "bf16",
}


def test_ours_and_plain_train_the_same_network(tmp_path):
    benchmark.make_pictures(tmp_path / "data", 16, 16)
    work = benchmark.Work(
        data=str(tmp_path / "data"), size_px=16, batch_size=4, steps=1, threads=1, bf16=False
    )
    networks = {}
    for name in ("ours", "plain"):
        clock = benchmark.StepClock()
        networks[name], _ = benchmark.LOOPS[name](work, clock, tmp_path / name)
        assert len(clock.wall_s) == benchmark.WARMUP_STEPS + 2
    ours, plain = networks["ours"], networks["plain"]
    assert type(ours) is type(plain)
    assert dict(ours.config) == dict(plain.config)
    work_of = [benchmark.forward_gflop(network, 16) for network in (ours, plain)]
    assert work_of[0] == work_of[1] > 0


def test_the_work_of_a_convolution_is_two_per_weight_and_pixel():
    class Network(torch.nn.Conv2d):
        def forward(self, x, t):
            return super().forward(x)

    network = Network(3, 8, 3, padding=1)
    assert benchmark.forward_gflop(network, 16) == pytest.approx(2 * 3 * 8 * 9 * 16**2 / 1e9)


def test_the_clock_leaves_the_warm_up_out():
    clock = benchmark.StepClock()
    clock.wall_s = [0.0, 100.0, 200.0, 203.0, 207.0, 212.0]
    clock.cpu_s = [0.0, 50.0, 60.0, 61.0, 63.0, 64.0]
    assert clock.per_step_s() == (4.0, 1.0)


def test_a_result_is_read_from_between_other_lines(tmp_path):
    script = tmp_path / "script.py"
    line = benchmark.json.dumps(RESULT)
    script.write_text(f"print('a library says', end='')\nprint('\\nRESULT ' + '{line}')\nprint(1)")
    (values,) = benchmark.results_apart(str(script), [], 1)
    assert benchmark.Result(**values) == benchmark.Result(**RESULT)


def test_of_a_process_that_fails_the_last_line_is_said(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("raise ValueError('no such shape')")
    with pytest.raises(benchmark.ProcessFailedError, match=r"^ValueError: no such shape$"):
        list(benchmark.results_apart(str(script), [], 1))


def test_the_ratio_is_that_of_the_same_round():
    def rounds(*speeds):
        return [benchmark.Result(**{**RESULT, "images_per_s": speed}) for speed in speeds]

    lines = benchmark.table({"ours": rounds(10, 2, 20), "other": rounds(5, 1, 10)})
    assert "2.00x" in lines[2]
