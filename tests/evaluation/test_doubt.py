"""How well standard deviations predict errors: closed forms, and figures of whole pipelines."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.mask import Mask
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.evaluation.calibration import Calibration, rank_correlation
from cascade.evaluation.doubt import _predicted, predicted_deviation
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.measuring_pairs import pairs
from cascade.evaluation.real_pictures import RealPictures
from cascade.evaluation.report import render
from cascade.evaluation.results import Evaluation
from cascade.pipeline import CascadePipeline
from cascade.restoration.doubt import Moments
from cascade.restoration.upscaling import Upscaling
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space

PIXELS = 200_000
RANGES = ((0, 1000), (0, 2000))


@pytest.fixture(scope="module")
def gaussian():
    """Deviations between 0.01 and 0.4, and errors that are normal with exactly these."""
    draw = torch.Generator().manual_seed(0)
    deviations = 0.01 * 40 ** torch.rand(PIXELS, generator=draw, dtype=torch.float64)
    return deviations, deviations * torch.randn(PIXELS, generator=draw, dtype=torch.float64)


def curve_of(deviations, errors, **options):
    calibration = Calibration()
    for parts in zip(deviations.chunk(3), errors.chunk(3), strict=True):
        calibration.add(*parts)
    return calibration.curve("", "levels", **options)


# ---- closed forms -------------------------------------------------------------------------------


def test_a_gaussian_truth_gives_a_curve_on_the_diagonal(gaussian):
    curve = curve_of(*gaussian, factor=100)
    assert len(curve.shares) == 10
    assert sum(curve.shares) == pytest.approx(1)
    assert max(curve.shares) < 0.11
    assert curve.errors == pytest.approx(curve.deviations, rel=0.03)
    assert curve.deviations[0] == pytest.approx(1.21, rel=0.05)
    assert curve.ratio == pytest.approx(1, rel=0.02)
    assert curve.expected_error < 0.02 * 100 * float(gaussian[0].mean())


def test_an_overconfident_model_lies_above_the_diagonal(gaussian):
    deviations, errors = gaussian
    curve = curve_of(deviations / 2, errors)
    assert curve.errors == pytest.approx([2 * each for each in curve.deviations], rel=0.03)
    assert curve.ratio == pytest.approx(0.5, rel=0.02)
    rms_per_bin = np.mean(curve.errors)
    assert curve.expected_error == pytest.approx(rms_per_bin / 2, rel=0.03)


@pytest.mark.parametrize("factor", [1.5, 3.0, 10.0])
def test_the_rank_correlation_of_two_deviations_has_a_closed_form(factor):
    """Half the pixels have b times the deviation of the others: sqrt(3) (2/pi atan(b) - 1/2)."""
    draw = torch.Generator().manual_seed(1)
    deviations = torch.ones(PIXELS)
    deviations[::2] = factor
    errors = deviations * torch.randn(PIXELS, generator=draw)
    expected = math.sqrt(3) * (2 / math.pi * math.atan(factor) - 0.5)
    assert rank_correlation(deviations, errors) == pytest.approx(expected, abs=0.006)


def test_ranks_of_the_same_order_correlate_fully_and_a_constant_tells_nothing():
    values = torch.tensor([3.0, 1.0, 2.0, 2.0])
    assert rank_correlation(values, values**3) == pytest.approx(1)
    assert rank_correlation(values, 1 / values) == pytest.approx(-1)
    assert rank_correlation(torch.ones(4), values) == 0
    assert rank_correlation(values, -values) == pytest.approx(1)


@pytest.mark.parametrize("seeds", [2, 8])
def test_the_mean_of_seeds_errs_more_than_the_deviation_and_is_predicted_so(seeds):
    """Draws and truth from one distribution: the mean of n errs by sigma sqrt(1 + 1/n)."""
    draw = torch.Generator().manual_seed(2)
    moments = Moments()
    for _ in range(seeds):
        moments.add(0.2 * torch.randn(1, 300, 300, generator=draw))
    truth = 0.2 * torch.randn(1, 300, 300, generator=draw)
    errors = moments.mean - truth
    assert float(errors.square().mean().sqrt()) == pytest.approx(
        0.2 * math.sqrt(1 + 1 / seeds), rel=0.01
    )
    curve = curve_of(predicted_deviation(moments.std(), seeds).flatten(), errors.flatten())
    assert curve.ratio == pytest.approx(1, rel=0.02)


def test_pixels_without_deviation_are_counted_too():
    curve = curve_of(torch.zeros(6), torch.ones(6))
    assert (curve.shares, curve.deviations, curve.errors) == ((1.0,), (0.0,), (1.0,))
    assert (curve.ratio, curve.expected_error) == (0.0, 1.0)
    assert curve_of(torch.ones(3), torch.zeros(3)).ratio == math.inf


# ---- pipelines ----------------------------------------------------------------------------------


@pytest.fixture
def tiles(tmp_path):
    """Four tiles of two bands."""
    draw = np.random.default_rng(3)
    folder = tmp_path / "tiles"
    folder.mkdir()
    high = np.array(RANGES, np.float32)[:, 1, None, None]
    for number in range(4):
        np.save(folder / f"{number}.npy", draw.random((2, 16, 16)).astype(np.float32) * high)
    return folder


def test_the_doubt_of_bands_is_measured_for_each(tiles, extractor, tmp_path):
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        Contract(
            Space(size_px=16, channels=2, range=RANGES, show=(1,)), (LowResolution(size_px=8),)
        ),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=1),
        embedding_dim=16,
    ).eval()
    evaluation = evaluate(
        CascadePipeline.from_stages({"up": stage}), tiles, num_images=3, doubt_seeds=2,
        extractor=extractor, cache_dir=tmp_path / "cache",
    )  # fmt: skip
    figures = {score.name: score for score in evaluation.whole.scores}
    for band in (1, 2):
        correlation = figures[f"uncertainty, rank correlation, band {band}"]
        assert -1 <= correlation.low <= correlation.value <= correlation.high <= 1
        error = figures[f"uncertainty, calibration error, % of the range, band {band}"]
        curve = evaluation.calibration[band - 1]
        assert error.value == curve.expected_error
        assert figures[f"uncertainty, deviation / error, band {band}"].value == curve.ratio
        assert (curve.name, curve.unit) == (f"band {band}", "% of the range")
        assert 1 < max(curve.errors) <= 100
    assert any("uncertainty: standard deviation over 2 seeds" in note for note in evaluation.notes)
    plain = json.loads(json.dumps(evaluation.to_dict()))
    again = Evaluation.from_dict(plain)
    assert again.calibration[1].errors == pytest.approx(evaluation.calibration[1].errors)
    check_expected_error(evaluation, stage)
    page = render(evaluation)
    assert "Uncertainty over seeds" in page
    assert "band 2" in page


def check_expected_error(evaluation: Evaluation, stage: DiffusionStage) -> None:
    """The curve of each band keeps the mean squared error that was measured."""
    saved = evaluation.expected_error
    assert saved is not None
    assert (saved.seeds, saved.pictures, len(saved.curves)) == (2, 3, 2)
    assert saved.holds_for([stage], 2, Upscaling())
    figures = {score.name: score for score in evaluation.whole.scores}
    for band, measured in enumerate(evaluation.calibration):
        curve = saved.curves[band]
        score = figures[f"uncertainty, rank correlation, band {band + 1}"]
        assert (curve.correlation, curve.low, curve.high) == (score.value, score.low, score.high)
        shares, errors = np.array(measured.shares), np.array(measured.errors) / 50
        assert np.square(curve.errors).mean() == pytest.approx((shares * errors**2).sum(), rel=0.05)


def test_the_doubt_of_pictures_is_that_of_the_results_of_each_seed(
    upsampler, held_out, extractor, tmp_path
):
    stage = upsampler.with_sampling(upsampler.sampling.changed(steps=1))
    pipeline = CascadePipeline.from_stages({"up": stage})
    evaluation = evaluate(
        pipeline, held_out, num_images=1, doubt_seeds=3, seed=4, extractor=extractor,
        cache_dir=tmp_path / "cache",
    )  # fmt: skip
    from cascade.tasks.table import paired_task_of

    contracts = pipeline.stages.contracts
    inputs, truth = pairs(RealPictures(held_out, name="held-out images"), [0], contracts)
    task = paired_task_of(contracts)
    results = torch.stack([task.run([stage], inputs, seed) for seed in (4, 5, 6)]).double()
    errors = results.mean(0) - truth[0]
    deviations = results.std(0) * math.sqrt(4 / 3)
    whole = {score.name: score.value for score in evaluation.whole.scores}
    expected = rank_correlation(deviations.float(), errors)
    assert whole["uncertainty, rank correlation"] == pytest.approx(expected, abs=1e-3)
    rms = [float(each.square().mean().sqrt()) for each in (deviations, errors)]
    assert whole["uncertainty, deviation / error"] == pytest.approx(rms[0] / rms[1], rel=1e-3)
    (curve,) = evaluation.calibration
    total = sum(s * e**2 for s, e in zip(curve.shares, curve.errors, strict=True))
    assert math.sqrt(total) == pytest.approx(rms[1] * 127.5, rel=1e-3)


def test_the_doubt_of_filled_holes_is_measured_in_the_holes_alone(inpainter, held_out):
    """Outside of them, results are the picture itself, for every seed."""
    stage = inpainter.with_sampling(inpainter.sampling.changed(steps=1))
    pipeline = CascadePipeline.from_stages({"fill": stage})
    pictures = RealPictures(held_out, name="held-out images")
    deviation, error = _predicted(pipeline, pictures, 0, range(2))
    inputs, _ = pairs(pictures, [0], pipeline.stages.contracts)
    hole = inputs.get(Mask.input_name)[0, -1] <= 0
    assert 0 < int(hole.sum()) < hole.numel()
    assert deviation.shape == error.shape == (3, int(hole.sum()))
    assert (deviation > 0).float().mean() > 0.5


def test_pipelines_without_originals_and_single_seeds_are_refused(
    base_stage, upsampler, held_out, extractor
):
    base = CascadePipeline.from_stages({"base": base_stage})
    with pytest.raises(ContractError, match="starts from noise; leave doubt_seeds out"):
        evaluate(base, held_out, doubt_seeds=4, extractor=extractor)
    pipeline = CascadePipeline.from_stages({"up": upsampler})
    with pytest.raises(ContractError, match="needs at least 2 seeds, got 1"):
        evaluate(pipeline, held_out, doubt_seeds=1, extractor=extractor)
