"""The example of other images: five channels with a range of 0 to 10,000, 48 x 80 px."""

from __future__ import annotations

import pytest
import torch

from cascade.conditioning.batch import Batch
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space
from cascade.stage import Run
from cascade.training.objectives.denoising import Denoising

BANDS = Space(size_px=(48, 80), channels=5, range=(0, 10_000), unit="reflectance x 10,000")


def fields(count: int) -> torch.Tensor:
    """Pictures of fields, (B, 5, 48, 80), each band in its own part of the range."""
    noise = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 5, 3, 5, generator=noise)
    smooth = torch.nn.functional.interpolate(coarse, size=BANDS.size, mode="bilinear")
    return smooth * torch.tensor([900.0, 1200, 1500, 4000, 9500])[:, None, None]


@pytest.fixture
def upsampler() -> DiffusionStage:
    torch.manual_seed(0)
    return DiffusionStage.build(
        Contract(BANDS, (LowResolution(size_px=(24, 40), augmentation_range=(0.0, 0.2)),)),
        NoiseProcess(NoiseSchedule(train_steps=100), prediction="x0", residual_std=0.1),
        network_options={"channels": (16, 32), "blocks": 1, "patch_size": 2},
        embedding_dim=32,
        sampling=SamplingSettings(steps=4),
    )


def test_they_are_trained_on_sampled_saved_and_loaded(upsampler, tmp_path):
    values = fields(8)
    batch = Batch(images=BANDS.to_unit(values), seeds=tuple(range(8)))
    assert torch.allclose(BANDS.from_unit(batch.images), values, atol=1e-2)
    optimiser = torch.optim.Adam(upsampler.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = Denoising().loss(upsampler, batch).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    upsampler.save_pretrained(tmp_path / "bands")
    loaded = DiffusionStage.from_pretrained(tmp_path / "bands")
    assert loaded.space == BANDS
    inputs = upsampler.contract.inputs_of(batch)
    images = loaded.run(batch.seeds, inputs)
    assert torch.equal(images, upsampler.eval().run(batch.seeds, inputs))
    assert images.shape == (8, 5, 48, 80)
    error = (BANDS.from_unit(images) - values).abs().mean(dim=(0, 2, 3))
    assert (error < torch.tensor([900.0, 1200, 1500, 4000, 9500]) * 0.5).all()


def test_conditioning_is_rounded_to_the_numbers_of_the_range():
    exact = BANDS.to_unit(torch.full((1, 5, 2, 2), 1234.0))
    assert torch.allclose(BANDS.quantise(exact), exact, atol=1e-6)
    between = BANDS.to_unit(torch.full((1, 5, 2, 2), 1234.4))
    assert torch.allclose(BANDS.quantise(between), exact, atol=1e-6)


def test_a_stage_of_another_range_does_not_join(upsampler):
    other = Contract(Space(size_px=(24, 40), channels=5, range=(0, 255)))
    with pytest.raises(
        ContractError, match=r"gives range \(0.0, 255.0\), .* takes \(0.0, 10000.0\)"
    ):
        upsampler.contract.check_follows(other, name="fine", previous_name="coarse")


def test_the_settings_of_a_call_hold_for_them_too(upsampler):
    batch = Batch(images=BANDS.to_unit(fields(1)), seeds=(0,))
    inputs = upsampler.contract.inputs_of(batch)
    one_step = Run(settings=upsampler.sampling.changed(steps=1))
    assert not torch.equal(upsampler.run([0], inputs), upsampler.run([0], inputs, run=one_step))
