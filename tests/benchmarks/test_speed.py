"""Facts about benchmarks/speed.py and less_work.py: their table and arithmetic, not their times."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import time
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cascade.sampling.tiles import Tiles, Tiling

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "speed.py"
sys.path.insert(0, str(SCRIPT.parent))


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("speed_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


speed = load_script()
less_work = sys.modules["less_work"]


# ---- the table ----------------------------------------------------------------------------------


def test_a_row_is_a_measure_a_figure_and_an_aim(capsys):
    table = speed.Table()
    table.row("x4 by ours", "0.41", "<= 0.10")
    table.row("of whom", "12.8")
    lines = capsys.readouterr().out.splitlines()
    cells = [["measure", "figure", "aim"], ["x4 by ours", "0.41", "<= 0.10"], ["of whom", "12.8"]]
    assert [re.split("  +", line.rstrip()) for line in lines] == cells
    ends = [line.index(row[1]) + len(row[1]) for line, row in zip(lines, cells, strict=True)]
    assert len(set(ends)) == 1
    assert len(lines[0]) == len(lines[1]) == lines[1].index("<= 0.10") + len("<= 0.10")


def test_every_part_is_explained():
    explained = [line.split()[0] for line in speed.__doc__.splitlines() if line.startswith("    ")]
    assert {each for each in explained if each in speed.PARTS} == set(speed.PARTS)


# ---- times --------------------------------------------------------------------------------------


def burn(seconds: float) -> None:
    start_s = time.process_time()
    while time.process_time() - start_s < seconds:
        pass


def test_sides_take_turns_after_one_to_warm_up():
    calls: list[str] = []

    def work(name: str) -> None:
        calls.append(name)
        burn(0.2 if calls.count(name) == 1 else 0.01)  # the first turn is slow

    times = speed.in_turns({name: lambda name=name: work(name) for name in "ab"}, rounds=2)
    assert "".join(calls) == "ababab"
    assert {name: len(each) for name, each in times.items()} == {"a": 2, "b": 2}
    assert all(0.01 <= each < 0.2 for each in (*times["a"], *times["b"]))


def test_waiting_costs_no_processor_time():
    assert speed.processor_s(lambda: time.sleep(0.2)) < 0.1
    assert speed.processor_s(lambda: burn(0.05)) >= 0.05


def test_a_process_is_measured_from_outside_and_its_failure_ends_the_run():
    wall_s, processor_s = speed.process_s("import sys, time; time.sleep(float(sys.argv[1]))", "0.5")
    assert wall_s > 0.5 > processor_s > 0
    with pytest.raises(SystemExit, match="the command failed: no such thing"):
        speed.process_s("raise SystemExit(3)", "no", "such", "thing")


def test_a_process_computes_with_the_threads_that_it_is_given(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    check = "import os, sys; sys.exit(os.environ['OMP_NUM_THREADS'] != sys.argv[1])"
    speed.process_s(check, "7")
    speed.process_s(check, "1", threads=1)


def test_ratios_are_of_paired_turns():
    assert speed.ratio([1.0, 4.0, 30.0], [1.0, 1.0, 10.0]) == 3  # of 1, 4 and 3


def test_a_large_photograph_and_a_step_are_reckoned():
    assert speed.minutes_of_12_mp(60, megapixels=0.5) == 24
    assert speed.minutes_of_12_mp(600, megapixels=12) == 10
    assert speed.step_s([1.0, 1.2, 9.0], [3.2, 2.0, 9.0]) == pytest.approx(0.5)


def test_the_second_half_of_results_is_timed_by_when_they_were_written(tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for file, time_s in zip(files, (60, 10, 40, 33), strict=True):
        file.touch()
        os.utime(file, (0, time_s))
    assert speed.second_half_s(files) == 60 - 33  # written at 10, 33, 40 and 60


def test_a_pipeline_of_two_stages_is_not_stopped(cascade, tmp_path):
    cascade.save_pretrained(tmp_path)
    assert speed.until_256(str(tmp_path)) == []
    assert speed.until_256("emoji-1024") == ["--stop-at", "upsampler_256"]


# ---- engines ----


def test_an_engine_that_is_not_installed_is_named_and_left_out(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    speed.measure_engine(speed.Table(), None)
    _, line = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"engine is left out \(.*\); pip install .*\[openvino\].*", line)


def test_both_engines_get_the_calls_of_a_drawing(cascade):
    stage = cascade.stages["upsampler"]
    calls = speed.network_calls(stage, torch.zeros(2, 3, 16, 16), 2)
    assert [tuple(x_t.shape) for x_t, _, _ in calls] == [(2, 3, 32, 32)] * 3
    assert len({float(t[0]) for _, t, _ in calls}) == 3
    assert not stage.network._forward_pre_hooks
    again = speed.outputs(stage.network, calls)
    assert speed.largest_difference(again, speed.outputs(stage.network, calls)) == 0


def test_outputs_differ_by_their_largest_difference_relative_to_the_other_side():
    theirs = [torch.tensor([3.0, -3.0]), torch.tensor([0.5, 0.5])]
    ours = [torch.tensor([3.0, -3.3]), torch.tensor([0.5, 0.6])]
    assert speed.largest_difference(ours, theirs) == pytest.approx(0.2)


# ---- pixels -------------------------------------------------------------------------------------


def test_pixels_of_the_network_and_near_seams_are_counted():
    tiling = Tiling((64, 96), 8, Tiles(64, 16), 1, is_fitted=False)
    (row,), (left, right) = tiling.rows, tiling.columns
    assert (left.start, left.stop, right.start, right.stop) == (0, 64, 32, 96)
    assert (row.start, row.stop) == (0, 64)
    assert less_work.network_pixels(tiling) == 64 * 128
    near = less_work.near_seams(tiling, (64, 96))
    assert near[0].nonzero().flatten().tolist() == list(range(48 - 8, 48 + 8))
    assert near.equal(near[:1].expand(64, 96))


def test_decibels_are_of_pictures_in_minus_one_to_one():
    assert less_work.decibels(torch.full((3, 8, 8), 0.2)) == pytest.approx(20)  # a tenth of 2


def test_the_picture_has_a_flat_half_and_a_rough_one():
    image = less_work.sky_and_texture(64, 96)
    steps = image.diff(dim=-1).abs().mean(dim=(0, 2))
    assert image.shape == (3, 64, 96)
    assert image.abs().max() <= 1
    assert steps[:16].max() < 0.01 < 0.1 < steps[-16:].min()


def test_the_share_of_the_core_is_measured_for_a_bundled_stage(monkeypatch, capsys):
    monkeypatch.setattr(speed, "STAGES", less_work.STAGES[-1:])
    monkeypatch.setattr(speed, "MATRIX", 64)
    speed.measure_limit(speed.Table(), Namespace(rounds=1))
    assert "photo-colour colours, share of that" in capsys.readouterr().out
