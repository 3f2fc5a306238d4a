import io
import re

import pytest
import torch
from PIL import Image

from cascade.bulk.remarks import defects_remark
from cascade.chain import StageChain
from cascade.conditioning.consistency import consistent_bands
from cascade.conditioning.defects import Defects, DefectsCondition
from cascade.conditioning.degradation import Degradation
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.imaging.picture import Picture, quantised
from cascade.imaging.picture_reading import decode_picture
from cascade.resizing import quantise, resize
from cascade.restoration.measuring import defects_for_network, defects_of, denoised_input
from cascade.restoration.upscaling import Upscaling, upscale_image, upscale_picture
from cascade.sampling.overrides import Overrides
from cascade.space import Space

CLEAN = Defects(0.0, 100.0)


@pytest.fixture(scope="module")
def truth():
    """A smooth picture of 96 px, (1, 3, H, W)."""
    draw = torch.Generator().manual_seed(0)
    return resize(torch.rand(1, 3, 9, 9, generator=draw) - 0.5, (96, 96), "bicubic")


@pytest.fixture(scope="module")
def stage():
    """An upsampler 16 -> 32 px that is told how degraded its picture is; random weights."""
    torch.manual_seed(0)
    low_resolution = LowResolution(size_px=16, degradation=Degradation())
    contract = Contract(Space(size_px=32), (low_resolution, DefectsCondition()))
    process = NoiseProcess(NoiseSchedule(train_steps=100), prediction="x0")
    stage = DiffusionStage.build(contract, process, network_options={"channels": [32], "blocks": 1})
    vector = stage.network.embedding.parts["defects"]  # it begins at zero
    torch.nn.init.normal_(vector.weight, std=3.0)
    return stage.with_sampling(stage.sampling.changed(steps=2)).eval()


def noisy(images, std):
    field = torch.randn(1, 1, *images.shape[-2:], generator=torch.Generator().manual_seed(1))
    return quantise(images + field * std / 127.5)


def rms(difference):
    return float(difference.square().mean().sqrt() * 127.5)


def test_agreeing_with_a_noisy_picture_brings_back_no_noise(truth):
    small = resize(truth, (24, 24), "bicubic")
    image = noisy(small, 18.0)
    result = truth + 0.06  # denoised, and too bright
    downscaled = resize(result, (24, 24), "bicubic")
    target = denoised_input(image, downscaled, Defects(18.0, 100.0))
    ((_, agreeing),) = consistent_bands(result.clone(), target, "bicubic")
    again = resize(agreeing, (24, 24), "bicubic")
    assert rms(image - small) > 16
    assert rms(again - small) < 4.5  # the brightness is mended, and no noise came back
    assert rms(result - truth) > 7
    ((_, forced),) = consistent_bands(result.clone(), image, "bicubic")
    assert rms(resize(forced, (24, 24), "bicubic") - small) > 14


def test_a_result_that_lost_an_object_gets_it_back(truth):
    small = resize(truth, (24, 24), "bicubic")
    with_object = small.clone()
    with_object[..., 10:12, 10:12] += 0.8
    target = denoised_input(noisy(with_object, 5.0), small, Defects(5.0, 100.0))
    gained = (target - small)[..., 10:12, 10:12].mean()
    assert 0.5 < gained < 0.9


def test_a_clean_picture_is_trusted_as_it_is(truth):
    assert denoised_input(truth, truth - 0.1, CLEAN) is truth


def test_results_for_clean_pictures_agree_and_those_for_noisy_ones_stay_quiet(stage, truth):
    image = quantise(resize(truth, (24, 24), "bicubic"))[0]
    clean = upscale_image([stage], image, Upscaling(inputs={"defects": [[0.0, 100.0]]}))
    assert rms(resize(clean[None], (24, 24), "bicubic")[0] - image) < 1.5


def test_denoise_0_equals_a_clean_picture(stage, truth):
    image = noisy(resize(truth, (24, 24), "bicubic"), 12.0)[0]
    keeping = stage.with_sampling(stage.sampling.changed(denoise=0.0))
    kept = upscale_image([keeping], image, Upscaling())
    told_clean = upscale_image([stage], image, Upscaling(inputs={"defects": [[0.0, 100.0]]}))
    assert kept.equal(told_clean)
    repaired = upscale_image([stage], image, Upscaling())
    assert not repaired.equal(kept)
    assert rms(resize(kept[None], (24, 24), "bicubic")[0] - image) < 2


def test_only_the_first_pass_sees_a_degraded_picture(stage, truth, monkeypatch):
    seen = []
    run = DiffusionStage.run
    monkeypatch.setattr(
        DiffusionStage,
        "run",
        lambda self, seeds, inputs, run_=None, **values: (
            seen.append(inputs.get("defects").tolist()) or run(self, seeds, inputs, **values)
        ),
    )
    image = resize(truth, (24, 24), "bicubic")[0]
    upscale_image([stage], image, Upscaling(scale=4, inputs={"defects": [[9.0, 40.0]]}))
    assert seen == [[[9.0, 40.0]], [[0.0, 100.0]]]


def test_a_file_states_its_quality_and_pixels_show_it(stage, truth):
    file = io.BytesIO()
    Picture(colour=quantised(noisy(truth, 9.0)[0], 8)).to_pil().save(file, "JPEG", quality=45)
    picture = decode_picture(file.getvalue(), "a.jpg")
    assert picture.jpeg_quality == 45
    assert Picture.from_pil(Image.open(file)).jpeg_quality == 45
    assert picture.with_pixels(picture.colour, None).jpeg_quality is None
    assert defects_of(picture.image(), stage, {}, lambda: picture.defects).quality == 45
    for wrong in ([1.0, 2.0, 3.0], [[1.0, 2.0], [3.0, 4.0]], [5.0], "none"):
        with pytest.raises(ContractError, match="must be a pair of noise"):
            defects_of(picture.image(), stage, {"defects": wrong})
    assert defects_of(picture.image(), stage, {}).quality == pytest.approx(45, abs=1)
    remark = defects_remark(picture, [stage])
    assert remark.startswith("is repaired: ")
    assert "JPEG quality about 45" in remark
    assert upscale_picture([stage], picture, Upscaling()).jpeg_quality is None


def test_what_is_repaired_is_said_and_a_clean_picture_needs_no_words(stage, truth):
    grainy = Picture(colour=quantised(noisy(truth, 9.0)[0], 8))
    assert re.match(
        r"is repaired: noise sigma [89]; a lower --denoise", defects_remark(grainy, [stage])
    )
    halved = defects_remark(grainy, [stage.with_sampling(stage.sampling.changed(denoise=0.5))])
    assert re.match(r"is repaired by 50 %: noise sigma [89]; a lower --denoise", halved)
    keeping = stage.with_sampling(stage.sampling.changed(denoise=0.0))
    assert defects_for_network(Defects(9.0, 45.0), keeping) == CLEAN
    assert defects_remark(grainy, [keeping]) == ""
    assert defects_remark(Picture(colour=quantised(truth[0], 8)), [stage]) == ""


def test_a_picture_is_measured_once_for_words_and_work(stage, truth, monkeypatch):
    measured = []
    of = Defects.of.__func__
    monkeypatch.setattr(
        Defects, "of", classmethod(lambda cls, image: measured.append(1) or of(cls, image))
    )
    grainy = Picture(colour=quantised(noisy(truth, 9.0)[0], 8))
    assert defects_remark(grainy, [stage])
    upscale_picture([stage], grainy, Upscaling())
    assert measured == [1]


def test_stages_that_are_not_told_refuse_the_dial_and_measure_nothing(upsampler, truth):
    assert defects_of(noisy(truth, 9.0)[0], upsampler, {}, pytest.fail) == CLEAN
    with pytest.raises(ContractError, match=r"denoise 0.5 is for stages with the condition"):
        upsampler.with_sampling(upsampler.sampling.changed(denoise=0.5))
    with pytest.raises(ContractError, match="denoise must be from 0 to 1"):
        upsampler.sampling.changed(denoise=1.5)


def test_the_dial_reaches_the_stages_that_have_it_and_no_others(stage, upsampler, base_stage):
    chain = StageChain({"base": base_stage, "larger": stage})
    changed = chain.with_sampling(Overrides({"all": {"denoise": 0.25}}))
    assert [each.sampling.denoise for _, each in changed.items()] == [1.0, 0.25]
    for own in (chain.with_sampling, StageChain({"base": upsampler}).with_sampling):
        with pytest.raises(ContractError, match=r"denoise 0.25 is for stages with the condition"):
            own(Overrides({"base": {"denoise": 0.25}}))
