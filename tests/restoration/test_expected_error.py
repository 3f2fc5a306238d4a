"""Curves of expected errors: fitted, applied, saved, and used for the same results alone."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from cascade.chain import StageChain
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import WeightsError
from cascade.evaluation.calibration import Calibration
from cascade.evaluation.error_curve import error_curve, rising
from cascade.imaging.picture import Picture
from cascade.imaging.rasters.raster import Raster
from cascade.networks.adapters import AdapterSettings, add_adapter, write_adapter
from cascade.pipeline import CascadePipeline
from cascade.restoration.colouring import Colouring
from cascade.restoration.expected_error import (
    ErrorCurve,
    ExpectedError,
    load_expected_error,
    model_digest,
)
from cascade.restoration.upscaling import Upscaling
from cascade.sampling.overrides import Overrides
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space

DOUBLE = ErrorCurve(deviations=(0.0, 0.1), errors=(0.0, 0.2), correlation=0.5, low=0.4, high=0.6)
STEEP = ErrorCurve(deviations=(0.0, 0.1), errors=(0.1, 0.5), correlation=0.1, low=-0.1, high=0.3)
SPACE = Space(size_px=16, channels=2, range=((0, 1000), (-50, 50)))


def of_curves(*curves: ErrorCurve, model: str = "", seeds: int = 2) -> ExpectedError:
    return ExpectedError(seeds=seeds, pictures=40, model=model, curves=curves)


@pytest.fixture(scope="module")
def doubler() -> DiffusionStage:
    return doubler_of(16)


def doubler_of(size_px: int) -> DiffusionStage:
    torch.manual_seed(0)
    return DiffusionStage.build(
        Contract(replace(SPACE, size_px=size_px), (LowResolution(size_px=size_px // 2),)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=1),
        embedding_dim=16,
    ).eval()


# ---- fitting ------------------------------------------------------------------------------------


def test_neighbours_that_fall_are_pooled_by_weight():
    assert rising([1, 3, 2, 4], [1, 1, 1, 1]) == [1, 2.5, 2.5, 4]
    assert rising([3, 1, 2], [3, 1, 2]) == pytest.approx([14 / 6] * 3)
    assert rising([2, 1], [1, 3]) == [1.25, 1.25]


def test_no_rising_numbers_are_nearer():
    values = torch.rand(30, generator=torch.Generator().manual_seed(0)).tolist()
    weights = (torch.rand(30, generator=torch.Generator().manual_seed(1)) + 0.1).tolist()
    fitted = np.array(rising(values, weights))
    assert (np.diff(fitted) >= 0).all()
    residuals = np.array(weights) * (np.array(values) - fitted)
    assert abs((residuals * fitted).sum()) < 1e-12  # the conditions of Karush, Kuhn and Tucker
    assert residuals.cumsum().min() > -1e-12


def test_the_curve_of_a_known_law_is_that_law():
    """Errors of deviation s + 0.1 whatever the seeds say, which no factor describes."""
    draw = torch.Generator().manual_seed(0)
    std = 0.3 * torch.rand(400_000, generator=draw, dtype=torch.float64)
    errors = (std + 0.1) * torch.randn(len(std), generator=draw, dtype=torch.float64)
    calibration = Calibration()
    calibration.add(1.5 * std, errors)
    curve = error_curve(calibration, 1.5, [0.3, 0.5, 0.4], ["a", "b", "c"])
    places = np.linspace(0.01, 0.29, 20)
    assert curve.at(places, 1.0) == pytest.approx(places + 0.1, rel=0.03)
    assert curve.at(127.5 * places, 127.5) == pytest.approx(127.5 * (places + 0.1), rel=0.03)
    assert curve.correlation == pytest.approx(0.4)
    assert curve.low is not None
    assert 0.3 <= curve.low < 0.4


# ---- applying -----------------------------------------------------------------------------------


def test_results_of_every_kind_have_errors_in_their_own_units():
    both = of_curves(DOUBLE, STEEP)
    tensor = both.of(torch.full((2, 3, 4), 0.05), torch.zeros(2, 3, 4))
    assert tensor[:, 0, 0].tolist() == pytest.approx([0.1, 0.3])
    values = np.stack([np.full((3, 4), 25.0), np.full((3, 4), 2.5)]).astype(np.float32)
    values[0, 1, 1] = np.nan
    raster = Raster(values=values, nodata=float("nan"))
    numbers = both.of(raster, Raster(values=np.zeros((2, 3, 4), np.uint16)), SPACE).values
    assert numbers[:, 0, 0].tolist() == pytest.approx([50, 15])
    assert np.argwhere(np.isnan(numbers)).tolist() == [[0, 1, 1]]
    for bits, kind in ((8, torch.uint8), (16, torch.uint16)):
        levels = 2**bits - 1
        picture = Picture(colour=torch.zeros(3, 3, 4, dtype=kind), bits=bits)
        std = of_curves(DOUBLE).of(torch.full((3, 3, 4), 0.02 * levels), picture)
        assert std.unique().tolist() == pytest.approx([0.04 * levels])


def test_curves_hold_for_the_same_results_alone(doubler):
    saved = of_curves(DOUBLE, DOUBLE, model=model_digest([doubler]))
    assert saved.holds_for([doubler], 2, Upscaling(seed=9, tile_px=64))
    assert saved.holds_for([doubler], 2, Upscaling(scale=2, consistent=True))
    assert not saved.holds_for([doubler], 3, Upscaling())
    assert not saved.holds_for([doubler], 2, Upscaling(scale=3))
    assert not saved.holds_for([doubler], 2, Upscaling(consistent=False))
    both = replace(saved, model=model_digest([doubler, doubler]))
    assert both.holds_for([doubler, doubler], 2, Upscaling(scale=4))
    assert not both.holds_for([doubler, doubler], 2, Colouring())
    for change in ({"steps": 2}, {"temperature": 0.5}):
        other = doubler.with_sampling(doubler.sampling.changed(**change))
        assert not saved.holds_for([other], 2, Upscaling())
        assert saved.holds_for([other.with_sampling(doubler.sampling)], 2, Upscaling())
    assert not replace(saved, model="0" * 64).holds_for([doubler], 2, Upscaling())


def test_an_adapter_keeps_the_curve_which_then_tells_that_it_does_not_hold(doubler, tmp_path):
    chain = CascadePipeline.from_stages({"up": doubler}).stages
    chain.expected_error = saved = of_curves(DOUBLE, DOUBLE, model=model_digest([doubler]))
    trunk = copy.deepcopy(doubler.network.trunk)
    add_adapter(trunk, AdapterSettings(rank=1))
    for name, parameter in trunk.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)
    write_adapter(trunk, tmp_path)
    adapted = chain.with_adapter(tmp_path, 1.0)
    assert adapted.expected_error is saved
    assert not saved.holds_for([adapted["up"]], 2, Upscaling())


def test_a_correlation_that_may_be_zero_is_remarked():
    assert of_curves(DOUBLE, DOUBLE).remark == ""
    assert "does not predict errors here in band 2: on 40" in of_curves(DOUBLE, STEEP).remark
    assert "does not predict errors here: on 40" in of_curves(STEEP).remark
    assert of_curves(replace(STEEP, low=None, high=None)).remark == ""


# ---- in files and pipelines ---------------------------------------------------------------------


def test_curves_are_loaded_with_their_pipeline_and_replace_the_deviation(doubler, tmp_path, caplog):
    pipeline = CascadePipeline.from_stages({"up": doubler})
    pipeline.save_pretrained(tmp_path / "model")
    saved = of_curves(DOUBLE, STEEP, model=model_digest([doubler]))
    saved.save(tmp_path / "model")
    loaded = CascadePipeline.from_pretrained(tmp_path / "model")
    assert loaded.stages.expected_error == saved
    image = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = pipeline.upscale(image, seeds=2, return_std=True)
    with caplog.at_level(logging.INFO):
        again, errors = loaded.upscale(image, seeds=2, return_std=True)
    assert "std is the expected error, measured on 40 images." in caplog.text
    assert again.equal(mean)
    for band, curve in enumerate(saved.curves):
        assert errors[band].numpy() == pytest.approx(curve.at(std[band].numpy(), 1.0), abs=1e-6)
    _, three = loaded.upscale(image, seeds=3, return_std=True)
    assert three.equal(pipeline.upscale(image, seeds=3, return_std=True)[1])
    loaded.save_pretrained(tmp_path / "model")  # replaces the folder as a whole
    assert load_expected_error(tmp_path / "model") == saved
    again = CascadePipeline.from_pretrained(tmp_path / "model")
    assert again.upscale(image, seeds=2, return_std=True)[1].equal(errors)


def test_curves_stay_with_chains_of_other_settings_stages_and_loaders(doubler, tmp_path):
    saved = of_curves(DOUBLE, DOUBLE, model=model_digest([doubler]))
    chain = StageChain({"up": doubler, "more": doubler_of(32)}, expected_error=saved)
    sampling = doubler.sampling
    assert chain.between("up", "up").expected_error is saved
    assert chain.replaced("more", doubler_of(32)).expected_error is saved
    other = chain.with_sampling(Overrides({"up": {"steps": 2}}))
    assert other.expected_error is saved
    assert not saved.holds_for([other["up"]], 2, Upscaling())
    back = other.with_sampling(Overrides({"up": {"steps": sampling.steps}}))
    assert saved.holds_for([back["up"]], 2, Upscaling())
    chain.save_pretrained(tmp_path / "chain")
    assert StageChain.from_pretrained(tmp_path / "chain").expected_error == saved
    CascadePipeline(chain).save_pretrained(tmp_path / "model")
    theirs = DiffusionPipeline.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert theirs.stages.expected_error == saved


def test_rounded_weights_keep_the_curve_with_a_warning_that_it_does_not_hold(
    doubler, tmp_path, caplog
):
    saved = of_curves(DOUBLE, DOUBLE, model=model_digest([doubler]))
    pipeline = CascadePipeline(StageChain({"up": doubler}, expected_error=saved))
    pipeline.save_pretrained(tmp_path / "full", dtype=torch.float32)
    assert caplog.text == ""
    pipeline.save_pretrained(tmp_path / "half", dtype=torch.bfloat16)
    assert caplog.text.count("rounded to bfloat16, for which the expected errors were not") == 1
    chain = CascadePipeline.from_pretrained(tmp_path / "half").stages
    assert chain.expected_error == saved
    assert not saved.holds_for([chain["up"]], 2, Upscaling())
    caplog.clear()
    measured = replace(saved, model=model_digest([chain["up"]]))
    chain.expected_error = measured
    CascadePipeline(chain).save_pretrained(tmp_path / "again", dtype=torch.bfloat16)
    assert caplog.text == ""  # rounding again changes nothing
    again = CascadePipeline.from_pretrained(tmp_path / "again").stages
    assert measured.holds_for([again["up"]], 2, Upscaling())


@pytest.mark.parametrize(
    "change",
    [
        {"curves": []},
        {"curves": [{"deviations": [0, 1], "errors": [1, 0], "correlation": 0.5}]},
        {"curves": [{"deviations": [0], "errors": ["x"], "correlation": 0.5}]},
        {"curves": [{"deviations": [0], "errors": [1], "correlation": 0.5, "low": "x"}]},
        {"curves": [{"deviations": [0], "errors": [1], "correlation": None}]},
        {"curves": [{"deviations": [0], "errors": [float("nan")], "correlation": 0.5}]},
        {"seeds": "two"},
        {"further": 1},
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, change):
    file = of_curves(DOUBLE).save(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(WeightsError, match=r"doubt.json does not describe the errors of a model"):
        load_expected_error(tmp_path)
