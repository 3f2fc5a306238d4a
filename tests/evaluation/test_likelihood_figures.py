"""Bits per dimension among the figures of an evaluation."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from cascade.diffusion.process import NoiseProcess
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.evaluation import likelihood_figures
from cascade.evaluation.figures import Measured
from cascade.evaluation.flow_likelihood import flow_bits_per_dimension
from cascade.evaluation.likelihood import bits_per_dimension
from cascade.evaluation.likelihood_figures import check_stages, with_likelihood
from cascade.evaluation.progress import no_progress
from cascade.evaluation.real_pictures import RealPictures
from cascade.evaluation.results import Measurements
from cascade.pipeline import CascadePipeline
from cascade.training.students import student_of


class Many:
    """Pictures of which only the number matters."""

    def __len__(self) -> int:
        return 2000

    def batch(self, places, contract):
        return len(places)


def measurements(*subjects: str) -> Measurements:
    return Measurements(
        measured=[
            Measured(subject=each, input="", size_px=16, seconds_per_image=1.0, scores=())
            for each in subjects
        ],
        settings={},
        notes=["another note"],
    )


def test_each_stage_of_a_chain_has_the_figure_alone(cascade, held_out, monkeypatch):
    monkeypatch.setattr(likelihood_figures, "BOUND_TIMESTEPS", 3)
    pictures = RealPictures(held_out, name="", vocabulary=cascade.labels)
    before = measurements("base", "upsampler, alone", "whole pipeline")
    after = with_likelihood(before, cascade, pictures, "bound", 3, no_progress)
    for measured, name in zip(after.measured, ("base", "upsampler"), strict=False):
        stage = cascade.stages[name]
        batch = pictures.batch(range(3), stage.contract)
        (score,) = measured.scores
        expected = bits_per_dimension(stage, batch, timesteps=3).total
        assert score.value == pytest.approx(float(expected.mean()), rel=1e-4)
        assert (score.name, score.n, score.better) == ("bits/dim (bound)", 3, "lower")
        assert score.low < score.value < score.high
    assert after.measured[-1].scores == ()
    assert after.notes[0] == "another note"
    assert "variational bound of sampling with ddpm" in after.notes[1]
    assert len(after.notes) == 2


def test_a_stage_of_its_own_is_the_whole_pipeline(base_stage, held_out, monkeypatch):
    quick = partial(flow_bits_per_dimension, steps=3)
    monkeypatch.setattr(likelihood_figures, "flow_bits_per_dimension", quick)
    pipeline = CascadePipeline.from_stages({"stage": base_stage})
    pictures = RealPictures(held_out, name="")
    after = with_likelihood(
        measurements("bicubic", "whole pipeline"), pipeline, pictures, "ode", 1, no_progress
    )
    batch = pictures.batch([0], base_stage.contract)
    expected = quick(base_stage, batch)
    (score,) = after.measured[-1].scores
    assert score.value == pytest.approx(float(expected[0]), rel=1e-4)
    assert (score.name, score.n, score.low) == ("bits/dim (ODE)", 1, None)
    assert "uniform noise of one step dequantises" in after.notes[-1]


def test_a_stage_that_saw_little_at_low_noise_is_named(base_stage, monkeypatch):
    monkeypatch.setattr(likelihood_figures, "_bits", lambda stage, batch, kind: torch.ones(1))
    process = NoiseProcess(base_stage.process.schedule, timesteps="logit_normal")
    stage = DiffusionStage(base_stage.network, process, base_stage.contract)
    pipeline = CascadePipeline.from_stages({"stage": stage})
    after = with_likelihood(measurements("whole pipeline"), pipeline, Many(), "ode", 1, no_progress)
    assert "stage 'stage' was trained with timesteps logit_normal" in after.notes[-1]


def test_at_most_100_pictures_are_measured(base_stage, monkeypatch):
    monkeypatch.setattr(
        likelihood_figures, "flow_bits_per_dimension", lambda stage, count: torch.ones(count)
    )
    pipeline = CascadePipeline.from_stages({"stage": base_stage})
    after = with_likelihood(
        measurements("whole pipeline"), pipeline, Many(), "ode", 1000, no_progress
    )
    assert after.measured[-1].scores[0].n == 100


def test_students_and_unknown_kinds_are_refused_before_any_work(base_stage):
    pipeline = CascadePipeline.from_stages({"stage": student_of(base_stage, steps=4)})
    with pytest.raises(ContractError, match=r"stage 'stage' has no likelihood: .*, 4 steps"):
        check_stages(pipeline, "ode")
    with pytest.raises(ContractError, match="likelihood must be bound or ode, got 'exact'"):
        check_stages(pipeline, "exact")
