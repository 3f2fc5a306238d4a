from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cascade.errors import CascadeError
from cascade.training import step_log
from cascade.training import trackers as trackers_module
from cascade.training.trackers import TrackedRun, Trackers, check_trackers

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def board(folder: Path):
    """What TensorBoard shows of a run."""
    events = accumulator.EventAccumulator(
        str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0}
    )
    return events.Reload()


class Recorder:
    """Stands in for a tracker that needs an account: keeps what it is sent."""

    made: list[Recorder]

    def __init__(self, project: str, **options: object) -> None:
        self.options = options
        self.sent: list[tuple[dict[str, float], int]] = []
        self.config: dict[str, object] = {}
        self.open = False
        Recorder.made.append(self)

    def start(self) -> None:
        if self.options["name"] == "no-account":
            raise RuntimeError("api_key not configured\n(no-tty)")
        self.open = True

    def store_init_configuration(self, values: dict[str, object]) -> None:
        self.config = values

    def log(self, values: dict[str, float], step: int) -> None:
        if step == 13:
            raise ConnectionError("network is unreachable")
        self.sent.append((values, step))

    def log_images(self, values: dict[str, list[Image.Image]], step: int) -> None:
        self.sent += [({name: picture.size}, step) for name, (picture,) in values.items()]

    def finish(self) -> None:
        self.open = False


@pytest.fixture
def recorder(monkeypatch):
    import accelerate.tracking

    Recorder.made = []
    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "wandb", Recorder)
    return Recorder.made


def tracked(tmp_path: Path, name: str = "run", **values) -> TrackedRun:
    return TrackedRun(folder=tmp_path / name, id="abc", config={"train.images": 3}, **values)


def test_everything_of_a_run_is_in_tensorboard_by_groups(make_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(step_log, "LOG_EVERY_STEPS", 1)
    samples = ["train.sample_every_images=32", "train.sample_count=2", "sampling.steps=1"]
    make_trainer(tmp_path, "train.images=64", "train.trackers=[tensorboard]", *samples).run()
    events = board(tmp_path)
    scalars = events.Tags()["scalars"]
    assert {"train/loss", "train/gradient_norm", "train/images_per_s"} <= set(scalars)
    assert {"meters/colour_mean_red", "meters/loss_at_log_snr_-7"} <= set(scalars)
    assert [event.step for event in events.Scalars("train/loss")] == [16, 32, 48, 64]
    assert [event.step for event in events.Scalars("meters/colour_mean_red")] == [32, 64]
    assert [event.step for event in events.Images("samples")] == [32, 64]
    (recipe,) = events.Tensors("recipe/text_summary")
    assert b"| train.images | 64 |" in recipe.tensor_proto.string_val[0]


def test_a_run_that_was_killed_goes_on_in_tensorboard_without_a_point_twice(
    make_trainer, tmp_path, monkeypatch
):
    monkeypatch.setattr(step_log, "LOG_EVERY_STEPS", 1)
    values = ["train.images=96", "train.checkpoint_every_images=64"]
    values += ["train.trackers=[tensorboard]"]
    make_trainer(tmp_path, *values).run()
    shutil.rmtree(tmp_path / "checkpoints" / "000000000096")  # as if killed before it was written
    make_trainer(tmp_path, *values).run()
    steps = [event.step for event in board(tmp_path).Scalars("train/loss")]
    assert steps == [16, 32, 48, 64, 80, 96]


def test_no_trackers_leave_nothing(make_trainer, tmp_path):
    make_trainer(tmp_path, "train.images=32", "train.trackers=[]").run()
    assert not (tmp_path / "tensorboard").exists()


def test_others_go_on_with_the_same_run_and_are_not_sent_a_point_again(recorder, tmp_path):
    trackers = Trackers(["wandb"], tracked(tmp_path, images_seen=64, tracked_images=96))
    for images in (80, 96, 112):
        trackers.log("train", {"loss": 1.0}, images=images)
    trackers.log_picture("samples", Image.new("RGB", (5, 4)), images=112)
    (tracker,) = recorder
    assert tracker.options["id"] == "abc"
    assert tracker.options["resume"] == "allow"
    assert tracker.config == {"train.images": 3}
    assert tracker.sent == [({"train/loss": 1.0}, 112), ({"samples": (5, 4)}, 112)]
    trackers.finish()
    assert not tracker.open


def test_all_parts_of_a_run_have_the_same_name_and_other_runs_another(
    recorder, make_trainer, tmp_path, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for run, images in (("a", 32), ("a", 64), ("b", 32)):
        make_trainer(tmp_path / run, f"train.images={images}", "train.trackers=[wandb]").run()
    first, resumed, other = (tracker.options["id"] for tracker in recorder)
    assert first == resumed != other
    assert recorder[0].config["network.kind"] == "transformer"
    assert recorder[0].config["train.trackers"] == "['wandb']"
    assert [step for _, step in recorder[1].sent] == [64]


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(recorder, tmp_path, caplog):
    trackers = Trackers(["wandb", "tensorboard"], tracked(tmp_path))
    for images in (12, 13, 14):
        trackers.log("train", {"loss": 1.0}, images=images)
    trackers.finish()
    assert [step for _, step in recorder[0].sent] == [12]
    assert [event.step for event in board(tmp_path / "run").Scalars("train/loss")] == [12, 13, 14]
    assert "tracker wandb failed and is dropped (network is unreachable)" in caplog.text


def test_a_tracker_that_cannot_start_ends_the_run_before_it_begins(recorder, tmp_path):
    with pytest.raises(
        CascadeError, match=r"wandb cannot start \(api_key not .* without the tracker"
    ):
        Trackers(["wandb"], tracked(tmp_path, "no-account"))


def test_a_missing_package_is_told_with_the_command_that_installs_it(monkeypatch):
    packages = {"tensorboard": object()}
    monkeypatch.setattr(trackers_module.importlib.util, "find_spec", packages.get)
    check_trackers(["tensorboard"])
    with pytest.raises(CascadeError, match="trackio is not installed: pip install trackio"):
        check_trackers(["tensorboard", "trackio"])
