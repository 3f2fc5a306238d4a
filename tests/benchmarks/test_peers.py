"""Facts about benchmarks/peers.py and trainees.py: time, pictures, end of the run, ratio."""

from __future__ import annotations

import importlib.util
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.contract import Contract
from cascade.data.sources import open_source
from cascade.data.training_images import TrainingImages
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.recipe.sections import StageRecipe
from cascade.space import Space
from cascade.training.learning_rate import learning_rate_factor

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "peers.py"
sys.path.insert(0, str(SCRIPT.parent))


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peers_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


CONTRACT = Contract(Space(size_px=8))
peers = load_script()
trainees = sys.modules["trainees"]


def make_work(**changes):
    values = {
        "task": "emoji",
        "data": "no data",
        "heldout": "",
        "at_s": (1.0, 2.0),
        "samples": 8,
        "steps": 2,
        "batch_size": 16,
        "threads": 1,
        "extractor": "lite0",
        "quick": False,
    }
    return peers.Work(**values | changes)


def row(at_s: float, fd: float, weights: str = "averaged"):
    return {"at_s": at_s, "fd": fd, "weights": weights}


def use_cpu(seconds: float) -> None:
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass


class ClockOfSteps:
    """A second every time it is read, which is once a step."""

    def __init__(self) -> None:
        self.reads = 0

    @contextmanager
    def running(self):
        yield

    def used_s(self) -> float:
        self.reads += 1
        return float(self.reads - 1)


class NoisePeer(trainees.Peer):
    """Learns nothing; keeps what it draws from the global generator while training."""

    def __init__(self) -> None:
        super().__init__(ClockOfSteps(), 4)
        self._size_px = 8
        self.drawn: list[float] = []
        self.both = {name: torch.nn.Linear(2, 2) for name in ("averaged", "last")}

    network = torch.nn.Identity()

    def _networks(self):
        return self.both

    def _step(self) -> None:
        self.drawn.append(float(torch.rand(())))

    def _draw(self, count, low_res, averaged):
        return torch.rand(count, 3, 8, 8)


def test_the_clock_stands_still_while_pictures_are_drawn():
    clock = trainees.Clock()
    with clock.running():
        use_cpu(0.05)
    used_s = clock.used_s()
    assert used_s >= 0.03  # the system counts hundredths
    use_cpu(0.1)
    assert clock.used_s() == used_s
    with clock.running():
        use_cpu(0.05)
        assert clock.used_s() >= used_s + 0.03


def test_the_last_time_is_the_end_and_later_ones_are_left_out():
    assert peers.times_s(12, "5,10,20,30") == (300, 600, 720)
    assert peers.times_s(1, "5") == (60,)
    with pytest.raises(ValueError, match="above 0"):
        peers.times_s(1, "0,1")
    with pytest.raises(ValueError, match="--at takes minutes"):
        peers.times_s(1, "5,ten")


def test_peers_see_our_pictures_mirrored_in_some_epochs(tmp_path):
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:, :4] = 255
    Image.fromarray(pixels).save(tmp_path / "one.png")
    pictures = trainees.Pictures(TrainingImages(open_source(str(tmp_path)), CONTRACT))
    as_it_is = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    same = [torch.equal(pictures[epoch], as_it_is) for epoch in range(20)]
    mirrored = [torch.equal(pictures[epoch], as_it_is.flip(-1)) for epoch in range(20)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 0 < sum(same) < 20


def test_quarters_lie_together_picture_by_picture():
    images = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4)
    cut = peers.quarters(images)
    assert cut.shape == (8, 3, 2, 2)
    upper, lower = (torch.cat([cut[first], cut[first + 1]], dim=-1) for first in (4, 6))
    assert torch.equal(torch.cat([upper, lower], dim=-2), images[1])


def test_our_learning_rate_has_fallen_when_the_time_is_up(tmp_path):
    peers.make_pictures(tmp_path / "data", 32, 16)
    values = load_stage_recipe(find_recipe("tiny-16", "stages")).model_dump()
    values["data"]["path"] = str(tmp_path / "data")
    values["train"]["warmup_images"] = 0
    ours = trainees.Ours(
        StageRecipe.model_validate(values),
        ClockOfSteps(),
        budget_s=40,
        steps=2,
        out=tmp_path / "run",
    )
    ours.train(20)
    assert ours.images_seen() == 32 * 21  # the step that begins at 20 s is taken
    before = ours.trainer.settings
    assert before.images == pytest.approx(32 * 40, abs=32)
    assert learning_rate_factor(ours.images_seen(), before) == 1
    ours.train(40)
    assert ours.images_seen() == 32 * 41
    assert learning_rate_factor(ours.images_seen() - 32, ours.trainer.settings) < 0.02
    averaged, last = (ours.draw(2, None, averaged=each) for each in (True, False))
    assert not torch.equal(averaged, last)
    assert torch.equal(ours.draw(2, None, averaged=True), averaged)


def test_drawing_pictures_does_not_change_what_a_peer_learns():
    torch.manual_seed(3)
    alone = NoisePeer()
    alone.train(4)
    torch.manual_seed(3)
    watched = NoisePeer()
    watched.train(2)
    first = watched.draw(2, None, averaged=True)
    assert torch.equal(watched.draw(2, None, averaged=True), first)
    watched.train(5)  # reading the clock ended the first part, and this one
    assert watched.drawn == alone.drawn
    assert watched.images_seen() == 4 * len(watched.drawn)


def test_the_weights_of_a_peer_are_kept_averaged_and_last(tmp_path):
    one, other = NoisePeer(), NoisePeer()
    one.save(tmp_path / "one.safetensors")
    other.load(tmp_path / "one.safetensors")
    for weights in ("averaged", "last"):
        assert torch.equal(one.both[weights].weight, other.both[weights].weight)
    assert not torch.equal(other.both["averaged"].weight, other.both["last"].weight)


def test_the_ratio_is_to_the_best_peer_at_the_end_with_its_better_weights():
    results = {
        "ours": [row(1, 9), row(2, 30), row(2, 40, "last")],
        "one": [row(1, 1), row(2, 200), row(2, 60, "last")],
        "other": [row(1, 80), row(2, 75), row(2, 100, "last")],
    }
    assert "is 0.50 of that of the best peer, one" in peers.ratio_text("emoji", results)
    assert "no ratio" in peers.ratio_text("emoji", {"ours": results["ours"]})


def test_what_is_done_is_not_done_again(tmp_path, capsys):
    work = make_work()
    about = {"work": peers.as_json(work), "against": "", "name": "X", "beside": "real images"}
    distances = peers.distances(torch.randn(4, 3), torch.randn(5, 3))
    peers.write_json(about | distances, tmp_path / "reference.json")
    (tmp_path / "reference.npy").touch()
    done = {"work": peers.as_json(work), "results": [row(2, 5.0)]}
    for name in peers.METHODS["emoji"]:
        peers.write_json(done, tmp_path / f"{name}.json")
    results = peers.compare(work, tmp_path, None)
    assert results == {name: [row(2, 5.0)] for name in peers.METHODS["emoji"]}
    other = {"work": peers.as_json(make_work(samples=9)), "results": [row(2, 6.0)]}
    peers.write_json(other, tmp_path / "imagen-pytorch.json")
    results = peers.compare(work, tmp_path, ["ours", "imagen-pytorch"])
    assert list(results) == ["ours"]  # the other was begun anew, and has no data
    assert "imagen-pytorch: left out" in capsys.readouterr().out
