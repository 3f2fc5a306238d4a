import math

import pytest
import torch

from cascade.conditioning.batch import Batch
from cascade.conditioning.defects import Defects, DefectsCondition, as_vector, scaled_defects
from cascade.conditioning.degradation import Degradation
from cascade.conditioning.faults.compression import jpeg
from cascade.conditioning.inputs import Inputs, Request
from cascade.conditioning.low_resolution import LowResolution
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.space import Space

SPACE = Space(size_px=32)
UNKNOWN = [0.0, 0.0, 0.0, 0.0]
CLEAN = [0.0, 1.0, 0.0, 1.0]


def request(values=None, image=None, denoise=1.0, count=1):
    return Request(
        inputs=Inputs({"defects": values, "image": image}),
        previous=None,
        space=SPACE,
        size_px=SPACE.size,
        augmentation_level=0.0,
        denoise=denoise,
        noise=SeededNoise(list(range(count)), "a"),
    )


def vector(**values):
    return DefectsCondition().of_request(request(**values)).vectors["defects"]


def test_the_vector_holds_both_numbers_and_whether_they_are_known():
    nan = math.nan
    defects = torch.tensor([[16.0, 30.0], [nan, 30.0], [16.0, nan], [nan, nan], [0.0, 100.0]])
    expected = [[0.5, 1, 0.7, 1], [0, 0, 0.7, 1], [0.5, 1, 0, 0], UNKNOWN, CLEAN]
    torch.testing.assert_close(as_vector(defects), torch.tensor(expected))


def test_denoise_0_tells_that_the_picture_is_clean_bit_for_bit():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for values in ([[12.3, 41.0]], [[math.nan, math.nan]], None):
        assert vector(values=values, image=image, denoise=0.0).tolist() == [CLEAN]
    assert vector(values=[[0.0, 100.0]]).tolist() == [CLEAN]


def test_the_dial_scales_both_numbers():
    half = scaled_defects(torch.tensor([[12.0, 40.0], [math.nan, 60.0]]), 0.5)
    torch.testing.assert_close(half, torch.tensor([[6.0, 70.0], [math.nan, 80.0]]), equal_nan=True)


def test_what_is_not_given_is_measured_and_unknown_without_an_image():
    draw = torch.Generator().manual_seed(0)
    noisy = (torch.randn(1, 1, 64, 64, generator=draw) * 10 / 127.5).expand(-1, 3, -1, -1)
    blocks = torch.rand(1, 3, 64, 64, generator=draw) - 0.5
    images = torch.cat([noisy, jpeg(blocks, 40)])
    vectors = vector(image=images, count=2)
    assert vectors[0, 0].item() * 32 == pytest.approx(10, rel=0.2)
    assert vectors[0, 2:].tolist() == CLEAN[2:]
    assert vectors[1, 2].item() == pytest.approx(0.6, abs=0.011)
    assert vectors.equal(as_vector(torch.tensor([Defects.of(image) for image in images])))
    assert vector(count=2).tolist() == [UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    ("noise", "quality", "side_px", "believed"),
    [
        (5.9, 100.0, 64, 0.0),
        (6.1, 100.0, 64, 6.1),
        (6.1, 100.0, 16, 6.1),
        (2.9, 95.0, 256, 0.0),
        (3.1, 95.0, 256, 3.1),
        (1.0, 80.0, 64, 1.0),  # compressed, so that noise is likely
    ],
)
def test_little_noise_of_small_clean_pictures_is_taken_for_detail(
    noise, quality, side_px, believed
):
    image = torch.zeros(3, side_px, side_px)
    assert Defects.believed(noise, quality, image) == Defects(believed, quality)


@pytest.mark.parametrize("values", [[[1.0]], [[1.0, 101.0]], [[-1.0, 50.0]], "noisy", [3.0, 50.0]])
def test_other_inputs_are_refused(values):
    with pytest.raises(ContractError, match="defects must be a pair of noise"):
        DefectsCondition().completed(values, [0], draw=False)


def trained(true, **values):
    """What training tells of 400 images with the same defects: (400, 4)."""
    batch = Batch(images=torch.zeros(400, 3, 32, 32), seeds=tuple(range(400)))
    batch.shared["defects"] = torch.tensor([true]).expand(400, -1)
    condition = DefectsCondition(**{"drop": 0.0} | values)
    return condition.of_batch(batch, SPACE, SeededNoise(batch.seeds, "a")).vectors["defects"]


def test_training_tells_the_truth_with_the_errors_of_a_measurement():
    vectors = trained([16.0, 50.0])
    assert vectors[:, 0].median() * 32 == pytest.approx(16.7, abs=0.6)
    assert vectors[:, 0].std() * 32 > 1.5
    assert vectors[:, 2].median() == pytest.approx(0.5, abs=0.01)
    assert vectors[:, 2].std() == pytest.approx(0.03, abs=0.005)
    assert vectors[:, 1::2].eq(1).all()
    exact = trained([16.0, 50.0], quality_error=0.0)
    assert (exact[:, 2] - 0.5).abs().max() < 1e-6


def test_training_tells_little_noise_of_clean_images():
    vectors = trained([0.0, 100.0])
    assert vectors[:, 2].eq(0).all()
    assert vectors[:, 0].median() * 32 < 0.7
    assert 0.08 < (vectors[:, 0] * 32 > 2).float().mean() < 0.25  # texture is taken for noise


def test_each_number_is_dropped_on_its_own_and_then_unknown():
    vectors = trained([16.0, 50.0], drop=0.3)
    for place in (0, 2):
        is_known = vectors[:, place + 1].bool()
        assert is_known.float().mean() == pytest.approx(0.7, abs=0.08)
        assert vectors[~is_known, place].eq(0).all()
    assert (vectors[:, 1] != vectors[:, 3]).any()
    assert trained([16.0, 50.0], drop=1.0).tolist() == [UNKNOWN] * 400


def test_the_low_resolution_image_shares_what_its_degradation_did():
    images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    batch = Batch(images=images, seeds=tuple(range(12)))
    values = {
        "orders": 1,
        "blur": {"probability": 0.0},
        "resize_probability": 0.0,
        "noise": {"std": (12.0, 12.0), "probability": 0.5},
        "compression": {"quality": (30.0, 60.0), "probability": 0.5},
    }
    LowResolution(size_px=16, degradation=Degradation(**values)).of_batch(
        batch, SPACE, SeededNoise(batch.seeds, "a")
    )
    noise, quality = batch.shared["defects"].T
    assert 2 < (noise == 0).sum() < 10
    assert (noise[noise > 0] > 3).all()
    assert (noise < 16).all()
    assert 2 < (quality == 100).sum() < 10
    assert ((quality == 100) | ((quality >= 30) & (quality <= 60))).all()


def test_without_a_degradation_training_says_what_is_missing():
    batch = Batch(images=torch.zeros(2, 3, 32, 32), seeds=(0, 1))
    with pytest.raises(
        ContractError, match="needs a condition 'low_resolution' with a degradation"
    ):
        DefectsCondition().of_batch(batch, SPACE, SeededNoise((0, 1), "a"))


def test_defects_are_for_pixels():
    with pytest.raises(ContractError, match="measured on pixels of 1 or 3 channels"):
        DefectsCondition().check(Space(size_px=32, channels=4))
