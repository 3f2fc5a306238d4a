"""The example of a sampler: one with an option of its own, usable everywhere by one table entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import pytest
import torch

from cascade.sampling.samplers.sampler import PairSampler, batch_of
from cascade.sampling.samplers.table import SAMPLERS
from cascade.sampling.steps import ddim_step

# ---- the sampler ----


@dataclass(frozen=True, kw_only=True)
class DampedOptions:
    """Options of the damped sampler."""

    damping: float = 0.0


@final
class Damped(PairSampler):
    """DDIM whose noise fades by `damping` at every step, so that images become smoother."""

    Options = DampedOptions
    options: DampedOptions

    def move(self, x0, x_t, pair, noise, variance):
        t, t_prev = pair
        eps = self.process.eps(x0, x_t, batch_of(t, x_t)) * (1 - self.options.damping)
        return ddim_step(self.process.schedule, x0, eps, t, t_prev, None)


# ---- where it works then ----


@pytest.fixture(autouse=True)
def _in_the_table(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "damped", Damped)


def test_in_python(cascade):
    call = {"seed": 0, "output_type": "pt", "precision": "fp32", "steps": 3, "guidance": 1}
    plain = cascade(num_images=2, sampler="ddim", **call).images
    undamped = cascade(num_images=2, sampler="damped", **call).images
    damped = cascade(num_images=2, sampler="damped", damping=0.5, **call)
    assert torch.equal(plain, undamped)
    assert not torch.allclose(plain, damped.images, atol=1e-3)
    assert damped.settings["base"]["damping"] == 0.5


def test_in_a_recipe_and_by_command(command, trained, pictures, tmp_path):
    name = "train.images=16 train.batch_size=16 train.sample_every_images=0 train.warmup_images=16"
    outcome = command(
        "train",
        "tiny-16",
        f"data.path={pictures}",
        *name.split(),
        "sampling.sampler=damped",
        "sampling.damping=0.25",
        "--out",
        tmp_path / "run",
    )
    assert outcome.code == 0, outcome.err
    from cascade.stage_kinds import load_stage

    sampling = load_stage(tmp_path / "run" / "stage").sampling
    assert (sampling.sampler, sampling.options) == ("damped", {"damping": 0.25})
    outcome = command(
        "generate",
        trained.pipeline,
        "-n",
        1,
        "--seed",
        0,
        "--sampler",
        "damped",
        "--set",
        "damping=0.5",
        "--set",
        "base.steps=2",
        "-o",
        tmp_path / "out",
    )
    assert outcome.code == 0, outcome.err
    outcome = command(
        "generate",
        trained.pipeline,
        "-n",
        1,
        "--sampler",
        "damped",
        "--set",
        "damping=often",
        "-o",
        tmp_path / "bad",
    )
    assert outcome.code != 0


def test_in_a_sweep(command, trained, pictures, tmp_path):
    outcome = command(
        "sweep",
        trained.pipeline,
        "--data",
        pictures,
        "-n",
        6,
        "--out",
        tmp_path / "sweep",
        "base.sampler=damped",
        "base.damping=0,0.5",
        "--extractor",
        "lite0",
    )
    assert outcome.code == 0, outcome.err
    assert "damping" in outcome.out
