"""Evaluating pipelines of bands of measured numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.data.training_images import epoch_order
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.real_pictures import RealPictures
from cascade.pipeline import CascadePipeline
from cascade.resizing import resize
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space
from cascade.tasks.image_metrics import psnr, ssim

RANGES = ((0, 1000), (0, 2000), (-50, 50), (0, 9))


def stage_of(*conditions, size_px: int = 32) -> DiffusionStage:
    torch.manual_seed(0)
    return DiffusionStage.build(
        Contract(Space(size_px=size_px, channels=4, range=RANGES, show=(3, 2, 1)), conditions),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8, 16), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=2),
        embedding_dim=32,
    ).eval()


@pytest.fixture
def tiles(tmp_path):
    """Eight tiles of four bands."""
    draw = np.random.default_rng(3)
    folder = tmp_path / "tiles"
    folder.mkdir()
    low, high = np.array(RANGES, np.float32).T[..., None, None]
    for number in range(8):
        values = draw.random((4, 32, 32)).astype(np.float32) * (high - low) + low
        np.save(folder / f"{number}.npy", values)
    return folder


def test_upscaled_bands_are_measured_one_by_one(tiles, extractor, tmp_path):
    pipeline = CascadePipeline.from_stages({"up": stage_of(LowResolution(size_px=16))})
    evaluation = evaluate(
        pipeline, tiles, num_images=3, extractor=extractor, cache_dir=tmp_path / "cache"
    )
    baseline = {score.name: score.value for score in evaluation.measured[0].scores}
    truth = RealPictures(tiles, name="", space=pipeline.stages.last.space).read(
        range(3), pipeline.stages.last.space
    )
    condition = pipeline.stages.last.contract.conditions[0]
    small = torch.stack([condition.of_picture(each, pipeline.stages.last.space) for each in truth])
    large = resize(small, (32, 32), "bicubic")
    for band in range(4):
        expected = psnr(large[:, band : band + 1], truth[:, band : band + 1], 2**16).mean()
        assert baseline[f"PSNR, dB, band {band + 1}"] == pytest.approx(float(expected), abs=1e-3)
        one, other = large[:, band : band + 1], truth[:, band : band + 1]
        similarity = float(ssim(one, other, 2**16).mean())
        assert baseline[f"SSIM, band {band + 1}"] == pytest.approx(similarity, abs=1e-3)
        again = resize(one, (16, 16), "bicubic") - small[:, band : band + 1]
        consistency = again.square().mean(dim=(1, 2, 3)).sqrt().mean() * 50
        name = f"LR-consistency, band {band + 1}, % of its range"
        assert baseline[name] == pytest.approx(float(consistency), abs=1e-2)
    whole = {score.name for score in evaluation.whole.scores}
    assert {f"LR-consistency, band {n}, % of its range" for n in (1, 2, 3, 4)} <= whole
    assert any("saw bands 3, 2 and 1 as red, green and blue" in note for note in evaluation.notes)
    assert evaluation.sheets[0].image.mode == "RGB"


def test_generated_bands_are_measured_as_a_set_by_the_bands_that_are_shown(
    tiles, extractor, tmp_path
):
    pipeline = CascadePipeline.from_stages({"base": stage_of()})
    evaluation = evaluate(
        pipeline, tiles, num_images=6, extractor=extractor, cache_dir=tmp_path / "cache"
    )
    assert evaluation.whole.score("FD") is not None
    assert any("saw bands 3, 2 and 1" in note for note in evaluation.notes)


def test_the_first_pictures_come_from_as_many_files_as_there_are(tmp_path, extractor):
    """-n 3 of a large volume and two small ones looks at each, and says which images are alike."""
    for name, count in (("a", 30), ("b", 1), ("c", 2)):
        stack = np.random.default_rng(count).random((count, 4, 32, 32)).astype(np.float32)
        np.save(tmp_path / f"{name}.npy", stack)
    pipeline = CascadePipeline.from_stages({"up": stage_of(LowResolution(size_px=16))})
    held_out = RealPictures(tmp_path, name="pictures", space=pipeline.stages.last.space)
    files = [held_out.key(place).split("#")[0] for place in range(len(held_out))]
    assert set(files[:3]) == {"a", "b", "c"}
    assert sorted(files) == ["a"] * 30 + ["b"] + ["c"] * 2
    assert [len({files[i] for i in (0, 1, 2, n)}) for n in range(3, 33)] == [3] * 30
    assert held_out.notes(3) == []
    (note,) = held_out.notes(5)
    assert "these are 5 pictures of 3 files; images of one file resemble" in note
    evaluation = evaluate(
        pipeline, held_out.source, num_images=4, extractor=extractor, cache_dir=tmp_path / "cache"
    )
    assert any("4 held-out images of 3 files" in note for note in evaluation.notes)


def test_the_order_of_pictures_in_files_of_their_own_is_the_shuffled_one(tiles):
    space = Space(size_px=32, channels=4, range=RANGES)
    held_out = RealPictures(tiles, name="", space=space)
    assert held_out.order == epoch_order(0, 0, 8).tolist()
    assert held_out.notes(8) == []
