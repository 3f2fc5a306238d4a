"""Stages with a condition of one's own are evaluated with inputs made from the true pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import pytest
import torch

from cascade.conditioning.condition import Condition
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.signals import ChannelSignal, Signals
from cascade.conditioning.slots import Slots
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.real_pictures import RealPictures
from cascade.pipeline import CascadePipeline
from cascade.resizing import resize
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space

REQUESTS = []


@final
@dataclass(frozen=True, kw_only=True)
class Green(Condition):
    """The green channel of the result."""

    name = "green"
    input_name = "green"
    recipe = dict

    def slots(self, space):
        return Slots(channels=1)

    def of_batch(self, batch, space, noise):
        return self._signals(self.input_of(batch, space))

    def of_request(self, request):
        green = request.inputs.get("green")
        REQUESTS.append((request.space.longer_px, green))
        return self._signals(resize(green.to(request.device), request.size_px, "bicubic"))

    def absent(self, signals):
        return self._signals(torch.zeros_like(signals.channels["green"].image))

    def input_of(self, batch, space, *, degraded=False):
        return batch.images[:, 1:2]

    def _signals(self, image):
        return Signals(channels={"green": ChannelSignal(image, 1)})


def stage_of(fill_zeros, size_px, *conditions):
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        Contract(Space(size_px=size_px), conditions),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8, 16), "blocks": 1},
        sampling=SamplingSettings(steps=2),
    )
    return fill_zeros(stage).eval()


@pytest.fixture
def pictures(held_out):
    return RealPictures(held_out, name="")


@pytest.fixture
def measure(held_out, extractor, tmp_path):
    REQUESTS.clear()

    def run(stages, num_images):
        pipeline = CascadePipeline.from_stages(stages)
        options = {"extractor": extractor, "cache_dir": tmp_path / "cache"}
        return evaluate(pipeline, held_out, num_images=num_images, **options)

    return run


def test_a_chain_gets_them_at_the_size_of_its_last_stage_that_reads_them(
    fill_zeros, pictures, measure
):
    stages = {
        "base": stage_of(fill_zeros, 16, Green()),
        "upsampler": stage_of(fill_zeros, 32, LowResolution(size_px=16), Green()),
    }
    results = measure(stages, 6)
    assert [each.subject for each in results.measured][:2] == ["base", "upsampler, alone"]
    green = pictures.read(range(6), Space(size_px=32))[:, 1:2]
    chained, alone = REQUESTS[:2], REQUESTS[2:]
    assert [size_px for size_px, _ in chained] == [16, 32]
    assert [size_px for size_px, _ in alone] == [32]
    assert all(torch.equal(image, green) for _, image in REQUESTS)


def test_what_is_restored_gets_them_too_and_the_pipeline_is_for_what_it_was(
    fill_zeros, pictures, measure, lite_of_random_weights
):
    stages = {"upsampler": stage_of(fill_zeros, 32, LowResolution(size_px=16), Green())}
    results = measure(stages, 2)
    assert results.task == "upscale"
    green = pictures.read(range(2), Space(size_px=32))[:, 1:2]
    assert {size_px for size_px, _ in REQUESTS} == {32}
    # Each picture is made with two seeds.
    assert torch.equal(torch.cat([image for _, image in REQUESTS[::2]]), green)
    assert torch.equal(torch.cat([image for _, image in REQUESTS[1::2]]), green)


def test_a_first_stage_with_a_further_condition_makes_pictures_from_noise(
    fill_zeros, pictures, measure
):
    results = measure({"base": stage_of(fill_zeros, 16, Green())}, 20)
    assert results.task == "generate"
    green = pictures.read([number % 16 for number in range(20)], Space(size_px=16))[:, 1:2]
    assert torch.equal(torch.cat([image for _, image in REQUESTS]), green)
