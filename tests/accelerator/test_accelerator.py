"""What an accelerator computes is what the CPU computes. `pytest -m gpu` runs these tests.

Without an accelerator they are skipped; CASCADE_TEST_DEVICE=cpu runs them on the CPU all the same,
which proves their logic. `benchmarks/accelerator.py` runs them too.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset

from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.batch import Batch
from cascade.conditioning.inputs import Inputs
from cascade.devices import best_device, find_device, has_fast_bf16
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion_stage import DiffusionStage
from cascade.pipeline import CascadePipeline
from cascade.restoration.upscaling import Upscaling, upscale_image
from cascade.sampling.samplers.table import sampler_names
from cascade.space import Space
from cascade.stage import Run, Stage
from cascade.training.objectives.objective import Learner
from cascade.training.objectives.table import make_objective
from cascade.training.settings import TrainingSettings
from cascade.training.sharding import full, shard
from cascade.training.students import student_of
from cascade.training.trainer import Trainer

CHOSEN = os.environ.get("CASCADE_TEST_DEVICE")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        CHOSEN is None and not torch.accelerator.is_available(), reason="there is no accelerator"
    ),
]
STAGES = ("base", "upsampler", "colouriser", "text")
LARGEST_ERROR = {"fp32": 1e-3, "bf16": 0.3, "fp16": 0.05}  # see `error`; random weights amplify it
STEPS = 4


@pytest.fixture
def device() -> Iterator[torch.device]:
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # it has the precision of fp16
    yield best_device() if CHOSEN is None else find_device(CHOSEN)
    torch.backends.cudnn.allow_tf32 = tf32


@pytest.fixture
def stages(base_stage, upsampler, colouriser, drawing) -> dict[str, DiffusionStage]:
    own = (base_stage, upsampler, colouriser, drawing.stages["base"])
    return dict(zip(STAGES, own, strict=True))


@pytest.fixture
def student(base_stage) -> DiffusionStage:
    return student_of(base_stage, steps=STEPS)


@pytest.fixture
def autoencoder() -> AutoencoderStage:
    torch.manual_seed(0)
    options = {"channels": [8, 8], "norm_groups": 4}
    return AutoencoderStage.build(Space(size_px=16), network_options=options).scaled(0.1, 0.5)


def move(stage: Stage, device: torch.device, precision: str) -> None:
    """Move a stage to the device, with weights for a precision."""
    if device.type == "cpu" and precision == "fp16":
        pytest.skip("the CPU does not compute in fp16")
    stage.to(device)
    if precision == "fp16":
        stage.half()


def error(result: Tensor, expected: Tensor) -> float:
    """The root mean square of the difference over that of what was expected."""
    difference = result.cpu().double() - expected.double()
    return float(difference.square().mean().sqrt() / expected.double().square().mean().sqrt())


def sample(stage: DiffusionStage, precision: str, sampler: str = "ddim") -> Tensor:
    """Two images of a stage; the stage of text draws a prompt, the others the classes."""
    stage = stage.with_sampling(stage.sampling.changed(sampler=sampler, steps=STEPS))
    image = torch.linspace(-1, 1, 2 * 16 * 16).view(2, 1, 16, 16)
    channels = [space.channels for space in stage.contract.image_spaces]
    values = {
        "labels": torch.tensor([[0, 1], [1, 0]]),
        "image": image.expand(-1, *channels, -1, -1) if channels else image,
        "prompt": ["a cat", "a dog"],
    }
    inputs = Inputs(values).only(stage.contract.input_names)
    own = "auto" if precision == "fp16" else precision
    return stage.run([3, 4], inputs, run=Run(stream="test", precision=own))


# ---- sampling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", LARGEST_ERROR)
@pytest.mark.parametrize("sampler", sampler_names())
@pytest.mark.parametrize("name", STAGES)
def test_images_are_those_of_the_cpu_in_fp32(stages, device, name, sampler, precision):
    expected = sample(stages[name], "fp32", sampler)
    move(stages[name], device, precision)
    assert error(sample(stages[name], precision, sampler), expected) < LARGEST_ERROR[precision]


@pytest.mark.parametrize("precision", LARGEST_ERROR)
def test_images_of_a_student_are_those_of_the_cpu_in_fp32(student, device, precision):
    expected = sample(student, "fp32")
    move(student, device, precision)
    assert error(sample(student, precision), expected) < LARGEST_ERROR[precision]


@pytest.mark.parametrize("precision", LARGEST_ERROR)
def test_latents_and_images_of_an_autoencoder_are_those_of_the_cpu_in_fp32(
    autoencoder, device, precision
):
    images = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
    latents = autoencoder.encode(images, [3, 4])
    expected = autoencoder.decode(latents)
    move(autoencoder, device, precision)
    own = "bf16" if precision == "bf16" else "fp32"  # which leaves weights in fp16 as they are
    encoded = autoencoder.encode(images, [3, 4], precision=own)
    assert error(encoded, latents) < LARGEST_ERROR[precision]
    decoded = autoencoder.decode(latents, precision=own)
    assert error(decoded, expected) < LARGEST_ERROR[precision]


def test_a_seed_draws_the_noise_of_the_cpu(device):
    ours = SeededNoise([5, 6], "test", device=device).normal(3, 8, 8)
    assert ours.device.type == device.type
    assert ours.cpu().equal(SeededNoise([5, 6], "test").normal(3, 8, 8))


def test_a_batch_draws_the_images_of_its_parts(base_stage, device):
    pipeline = CascadePipeline.from_stages({"base": base_stage.to(device)})
    options = {"seed": 1, "output_type": "pt", "precision": "fp32"}
    pipeline.set_progress_bar_config(disable=True)
    together = pipeline(num_images=5, batch_size=5, **options).images
    apart = pipeline(num_images=5, batch_size=2, **options).images
    assert error(apart, together.cpu()) < LARGEST_ERROR["fp32"]


@pytest.mark.parametrize("tile_px", [64, 512])
def test_tiles_and_whole_pictures_are_those_of_the_cpu(upsampler, device, tile_px):
    image = torch.rand(3, 72, 56, generator=torch.Generator().manual_seed(0)) * 2 - 1
    upscaling = Upscaling(tile_px=tile_px, precision="fp32")
    expected = upscale_image([upsampler], image, upscaling)
    result = upscale_image([upsampler.to(device)], image, upscaling)
    assert error(result, expected) < LARGEST_ERROR["fp32"]


def test_offloading_gives_the_images_of_the_accelerator(base_stage, upsampler, device):
    if device.type == "cpu":
        pytest.skip("offloading needs an accelerator")
    pipeline = CascadePipeline.from_stages({"base": base_stage, "up": upsampler}).to(device)
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_images": 2, "seed": 0, "output_type": "pt", "precision": "fp32"}
    expected = pipeline(**options).images
    pipeline.enable_model_cpu_offload()
    assert pipeline.device.type == "cpu"
    assert pipeline(**options).images.equal(expected)
    assert {each.device.type for each in pipeline.stages.parameters()} == {"cpu"}


def test_a_compiled_network_draws_the_same_image(base_stage, device):
    stage = base_stage.to(device)
    expected = sample(stage, "fp32").cpu()
    stage.trunk.compile()
    assert error(sample(stage, "fp32"), expected) < LARGEST_ERROR["fp32"]


def test_the_memory_estimate_is_above_what_a_pass_needs_and_not_far(upsampler, device):
    if device.type != "cuda":
        pytest.skip("only CUDA counts its memory")
    side_px = 1024
    stage = upsampler.to(device)
    image = torch.zeros(1, 3, side_px, side_px, device=device)
    small = torch.zeros(1, 3, side_px // 2, side_px // 2)
    inputs = Inputs({"image": small, "labels": torch.tensor([[0, 1]])})
    stage.run([0], inputs, run=Run(stream="warm", precision="fp32"))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    stage.run([0], inputs, run=Run(stream="test", precision="fp32"))
    used = torch.cuda.max_memory_allocated() - before
    estimate = stage.network.bytes_at_once(side_px)
    canvases = 8 * image.nbytes  # x_t, x0, conditions and the sampler's own
    assert used < estimate + canvases
    assert estimate < 8 * used


# ---- training -----------------------------------------------------------------------------------


class Colours(Dataset):
    """Plain images with two labels."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict:
        image = torch.linspace(-1, 1, 3 * 16 * 16).roll(index * 7).view(3, 16, 16)
        return {"image": image, "labels": {"animal": index % 2, "style": "noto"}}


def train(stage: DiffusionStage, out: Path, device: str, **changes) -> float:
    """Train for two steps; their mean loss."""
    settings = TrainingSettings(images=16, batch_size=8, warmup_images=0, **changes)
    settings = dataclasses.replace(settings, sample_every_images=0, trackers=())
    Trainer(copy.deepcopy(stage), Colours(), out, settings, device=device).run()  # pyright: ignore
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line][-1]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("precision", "relative"), [("fp32", 1e-3), ("bf16", 0.05)])
def test_two_steps_of_training_have_the_loss_of_the_cpu(
    base_stage, device, tmp_path, precision, relative, compiled
):
    if precision == "bf16" and not has_fast_bf16(device):
        pytest.skip("the device does not compute in bf16")
    expected = train(base_stage, tmp_path / "cpu", "cpu", precision="fp32")
    options = {"precision": precision, "compile": compiled}
    loss = train(base_stage, tmp_path / "own", device.type, **options)
    assert loss == pytest.approx(expected, rel=relative)


def training_batch(stage: DiffusionStage, device: torch.device) -> Batch:
    """Two images with what the stage's conditions read."""
    side_px = stage.space.longer_px
    images = torch.linspace(-1, 1, 2 * 3 * side_px**2).view(2, 3, side_px, side_px)
    data = {"labels": torch.tensor([[0, 1], [1, 0]]), "text": (("a cat",), ("a dog",))}
    own = {name: data[name] for name in data if name in stage.contract.slots}
    return Batch(images=images, seeds=(0, 1), conditions=own).to(device)


@pytest.fixture
def one_process(device, tmp_path) -> Iterator[None]:
    """A group of processes that has one."""
    backend = "gloo" if device.type == "cpu" else None
    meeting = f"file://{tmp_path / 'meeting'}"
    dist.init_process_group(backend, init_method=meeting, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("name", STAGES)
def test_a_sharded_stage_has_the_gradients_of_a_whole_one(stages, device, name):
    stage = stages[name].to(device).train()
    sharded = copy.deepcopy(stage)
    learner = Learner(sharded, make_objective("denoising"))
    shard(learner, TrainingSettings(precision="fp32"), device=device, processes=1)
    batch = training_batch(stage, device)
    Learner(stage, make_objective("denoising"))(batch).mean().backward()
    learner(batch).mean().backward()
    pairs = list(zip(stage.parameters(), sharded.parameters(), strict=True))
    assert [own.grad is None for own, _ in pairs] == [part.grad is None for _, part in pairs]
    with_gradient = [(own.grad, full(part.grad)) for own, part in pairs if own.grad is not None]
    # Some gradients are zero but for rounding, so that only their whole can be compared.
    whole = torch.cat([each.flatten() for each, _ in with_gradient])
    parts = torch.cat([each.flatten() for _, each in with_gradient])
    assert error(parts, whole.cpu()) < LARGEST_ERROR["fp32"]
