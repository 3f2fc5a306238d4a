"""Stages whose network predicts only what the given image leaves open."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.luminance import Luminance
from cascade.conditioning.signals import Signals
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.space import Space
from cascade.stage import Run
from cascade.training.objectives.denoising import Denoising

GREY = (Space(size_px=16), Luminance())
SMALL = (Space(size_px=32), LowResolution(size_px=16))


def make_process() -> NoiseProcess:
    return NoiseProcess(
        NoiseSchedule(train_steps=100), prediction="x0", weighting="residual", residual_std=0.1
    )


def make_stage(space: Space, *conditions: Condition) -> DiffusionStage:
    options = {"channels": (8, 16), "blocks": 1}
    contract = Contract(space, conditions)
    return DiffusionStage.build(contract, make_process(), network_options=options).eval()


def of_image(image: Tensor) -> Inputs:
    return Inputs({"image": image})


def guess_of(stage: DiffusionStage, image: Tensor) -> Tensor:
    """The image as the stage takes it, at the size of the result."""
    full = torch.nn.functional.interpolate(image, size=stage.space.size, mode="nearest")
    batch = Batch(
        images=full, seeds=tuple(range(len(image))), conditions={LowResolution.name: image}
    )
    taken = stage.contract.inputs_of(batch).get("image")
    return nn.functional.interpolate(taken, size=stage.space.size, mode="bicubic")


@pytest.mark.parametrize("parts", [SMALL, GREY], ids=["low_resolution", "luminance"])
def test_a_new_network_draws_what_is_known_of_the_residual(parts, low_res):
    """Its output is zero, so that the samples are those of r ~ N(0, std^2) around the image."""
    stage = make_stage(*parts)
    half = low_res / 2
    run = Run(settings=stage.sampling.changed(steps=100))
    residual = stage.run(range(5), of_image(half), run=run) - guess_of(stage, half)
    assert residual.std() == pytest.approx(0.1, rel=0.1)
    assert residual.mean() == pytest.approx(0, abs=0.01)
    assert residual.diff(dim=-1).std() == pytest.approx(0.1 * 2**0.5, rel=0.1)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_lower_temperature_draws_nearer_to_the_image(low_res, sampler):
    """The network adds nothing, so that samples are linear in the noise."""
    stage = make_stage(*GREY)
    half, base = low_res / 2, guess_of(stage, low_res / 2)
    warm, cool = (
        stage.run(
            range(5),
            of_image(half),
            run=Run(settings=stage.sampling.changed(sampler=sampler, temperature=temperature)),
        )
        - base
        for temperature in (1.0, 0.5)
    )
    torch.testing.assert_close(cool, warm / 2, rtol=0, atol=2e-3)


def test_temperature_is_refused_for_base_stages(base_stage):
    with pytest.raises(ContractError, match=r"temperature 0.5 is for stages that take an image"):
        base_stage.run([0], run=Run(settings=base_stage.sampling.changed(temperature=0.5)))
    with pytest.raises(ContractError, match=r"temperature must be from 0 to 1, got 1.5"):
        base_stage.sampling.changed(temperature=1.5)


def test_the_loss_of_the_best_possible_network_is_nothing(low_res):
    """The network is replaced by one that knows x0, in the units in which training wants it."""
    process = make_process()
    assert process.residual is not None
    x0, residual = low_res, process.residual
    calls: list[Tensor] = []

    class Oracle(nn.Module):
        def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
            calls.append(x_t)
            grey = signals.channels[Luminance.name].image
            alpha, sigma = residual.schedule.alpha_sigma(t)
            variance = alpha**2 * residual.std**2 + sigma**2
            noisy = x_t * variance.sqrt() + alpha * grey  # before `network_input` scaled it
            empty = residual.x0(torch.zeros_like(x0), noisy, grey, t)
            return (x0 - empty) / (residual.std * sigma / variance.sqrt())

    stage = DiffusionStage(Oracle(), process, Contract(GREY[0], GREY[1:]))
    loss = Denoising().loss(stage, Batch(images=x0, seeds=tuple(range(5))))
    assert loss.shape == (5,)
    assert loss.max() < 1e-6
    assert len(calls) == 1


def test_it_is_saved_and_loaded(tmp_path, low_res):
    stage = make_stage(*SMALL)
    for parameter in stage.network.parameters():
        nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    stage.save_pretrained(tmp_path / "stage")
    loaded = DiffusionStage.from_pretrained(tmp_path / "stage")
    assert loaded.config()["process"]["residual_std"] == 0.1
    first, second = (each.run([1], of_image(low_res[:1])) for each in (stage, loaded))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "conditions",
    [(), (Labels(fields={"class": ["a"]}),), (Luminance(drop=0.1),)],
    ids=["none", "labels", "dropped image"],
)
def test_stages_without_an_image_that_is_always_there_are_refused(conditions):
    with pytest.raises(
        ContractError, match=r"residual_std is for stages with a conditioning image that .* is"
    ):
        make_stage(Space(size_px=16), *conditions)
