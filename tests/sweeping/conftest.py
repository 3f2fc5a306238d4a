"""What tests of sweeps share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space


@pytest.fixture
def unlabelled(fill_zeros):
    """A function that gives a tiny stage without labels, which else does what another one does.

    Keyword arguments change its image condition. Its weights are random.
    """

    def without_labels(stage: DiffusionStage, **changes) -> DiffusionStage:
        images = [replace(each, **changes) for each in stage.conditions if each.name != "labels"]
        torch.manual_seed(0)
        stage = DiffusionStage.build(
            Contract(stage.space, tuple(images)),
            stage.process,
            network_options={"channels": (8, 16), "blocks": 1, "patch_size": 2},
            embedding_dim=32,
            sampling=stage.sampling,
        )
        return fill_zeros(stage.eval())

    return without_labels


@pytest.fixture
def resample():
    """A function that changes the sampling settings of one stage of a pipeline."""

    def change(pipeline, name: str, **changes) -> None:
        stage = pipeline.stages[name]
        pipeline.replace_stage(name, stage.with_sampling(stage.sampling.changed(**changes)))

    return change


@pytest.fixture
def refiner() -> DiffusionStage:
    """4 -> 8 px; refines a first guess."""
    return DiffusionStage.build(
        Contract(Space(size_px=8), (LowResolution(size_px=4),)),
        NoiseProcess(NoiseSchedule(train_steps=100), prediction="x0", residual_std=0.1),
        network_options={"channels": (8, 16), "blocks": 1},
        embedding_dim=32,
        sampling=SamplingSettings(steps=2),
    ).eval()
