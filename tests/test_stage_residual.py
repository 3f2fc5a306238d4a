"""Stages whose network predicts only what the given image leaves open."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cascade.conditioning.conditions import Conditions
from cascade.contract import Contract
from cascade.conditioning.batch import Batch
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.stage import Stage


def make_stage(contract: Contract, **options) -> Stage:
    process = NoiseProcess(
        NoiseSchedule(train_steps=100), prediction="x0", weighting="residual", residual_std=0.1
    )
    return Stage.build(
        contract, process, network_options={"channels": (8, 16), "blocks": 1}, **options
    ).eval()


@pytest.mark.parametrize(
    "contract", [Contract(size_px=32, low_res_px=16), Contract(size_px=16, takes="grey")]
)
def test_a_new_network_draws_what_is_known_of_the_residual(contract, low_res):
    """Its output is zero, so that the samples are those of r ~ N(0, std^2) around the image."""
    stage = make_stage(contract)
    half = low_res / 2
    made = stage.sample(range(5), image=half, settings=stage.sampling.changed(steps=100))
    base = stage.as_taken(half)
    if stage.is_upsampler:
        base = nn.functional.interpolate(base, size=(32, 32), mode="bicubic")
    drawn = made - base
    assert drawn.std() == pytest.approx(0.1, rel=0.1)
    assert drawn.mean() == pytest.approx(0, abs=0.01)
    assert drawn.diff(dim=-1).std() == pytest.approx(0.1 * 2**0.5, rel=0.1)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_lower_temperature_draws_nearer_to_the_image(low_res, sampler):
    """The network adds nothing, so that samples are linear in the noise."""
    stage = make_stage(Contract(size_px=16, takes="grey"))
    half, base = low_res / 2, stage.as_taken(low_res / 2)
    warm, cool = (
        stage.sample(
            range(5),
            image=half,
            settings=stage.sampling.changed(sampler=sampler, temperature=temperature),
        )
        - base
        for temperature in (1.0, 0.5)
    )
    torch.testing.assert_close(cool, warm / 2, rtol=0, atol=2e-3)


def test_temperature_is_refused_for_base_stages(base_stage):
    with pytest.raises(ContractError, match=r"temperature 0.5 is for stages that take an image"):
        base_stage.sample([0], settings=base_stage.sampling.changed(temperature=0.5))
    with pytest.raises(ContractError, match=r"temperature must be from 0 to 1, got 1.5"):
        base_stage.sampling.changed(temperature=1.5)


def test_the_loss_of_the_best_possible_network_is_nothing(low_res):
    """The network is replaced by one that knows x0, in the units that training wants."""
    stage = make_stage(Contract(size_px=16, takes="grey"))
    assert stage.process.residual is not None
    x0, residual = low_res, stage.process.residual
    seen: list[torch.Tensor] = []

    class Oracle(nn.Module):
        def forward(self, x_t, t, conditions: Conditions):
            seen.append(x_t)
            alpha, sigma = residual.schedule.alpha_sigma(t)
            variance = alpha**2 * residual.std**2 + sigma**2
            noisy = x_t * variance.sqrt() + alpha * conditions.image  # as it was
            empty = residual.x0(torch.zeros_like(x0), noisy, conditions.image, t)
            return (x0 - empty) / (residual.std * sigma / variance.sqrt())

    stage.network = Oracle()
    loss = stage.loss(Batch(images=x0, seeds=list(range(5))))
    assert loss.shape == (5,)
    assert loss.max() < 1e-6
    assert len(seen) == 1


def test_it_is_saved_and_loaded(tmp_path, low_res):
    stage = make_stage(Contract(size_px=32, low_res_px=16))
    for parameter in stage.network.parameters():
        nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    stage.save_pretrained(tmp_path / "stage")
    loaded = Stage.from_pretrained(tmp_path / "stage")
    assert loaded.config()["process"]["residual_std"] == 0.1
    first, second = (each.sample([1], image=low_res[:1]) for each in (stage, loaded))
    assert torch.equal(first, second)


def test_base_stages_and_dropped_images_are_refused():
    with pytest.raises(ContractError, match="residual_std is for stages that take an image"):
        make_stage(Contract(size_px=16))
    with pytest.raises(ContractError, match="and with image_drop 0"):
        make_stage(Contract(size_px=16, takes="grey"), image_drop=0.1)
