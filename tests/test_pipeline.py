"""Sampling with a pipeline; saving is in test_pipeline_saving.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from cascade.conditioning.labels import LabelVocabulary
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.imaging.writing import from_uint8, to_uint8
from cascade.pipeline import CascadeOutput, CascadePipeline
from cascade.stage import Stage

STEP = 2 / 255  # of an 8-bit picture


@pytest.fixture
def pipeline(base_stage, upsampler) -> CascadePipeline:
    return quiet(CascadePipeline.from_stages({"base": base_stage, "up": upsampler}))


def quiet(pipeline: CascadePipeline) -> CascadePipeline:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(pipeline: CascadePipeline, *arguments, **options) -> CascadeOutput:
    result = pipeline(*arguments, **({"output_type": "pt", "precision": "fp32"} | options))
    assert isinstance(result, CascadeOutput)
    return result


class Calls:
    """A callback that records what it is told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.steps: list[int] = []
        self.timesteps: list[int] = []
        self.totals: list[int] = []
        self.kwargs: list[dict] = []

    def __call__(self, pipeline, step, timestep, kwargs) -> dict:
        self.stages.append(pipeline.current_stage)
        self.totals.append(pipeline.num_timesteps)
        self.steps.append(step)
        self.timesteps.append(timestep)
        self.kwargs.append(dict(kwargs))
        return {}

    def of(self, stage: str) -> list[int]:
        return [s for s, name in zip(self.steps, self.stages, strict=True) if name == stage]


# ---- images and seeds ---------------------------------------------------------------------------


def test_the_last_stage_s_images_come_out_in_each_form(pipeline):
    tensors = sample(pipeline, 3, seed=1).images
    assert tensors.shape == (3, 3, 32, 32)
    assert tensors.dtype == torch.float32
    assert -1 <= tensors.min() < tensors.max() <= 1
    arrays = sample(pipeline, 3, seed=1, output_type="np").images
    assert np.array_equal(arrays, ((tensors + 1) / 2).permute(0, 2, 3, 1).numpy())
    pictures = sample(pipeline, 3, seed=1, output_type="pil").images
    pixels = np.stack([np.asarray(picture) for picture in pictures])
    assert np.array_equal(pixels, to_uint8(tensors).permute(0, 2, 3, 1).numpy())
    (in_tuple,) = pipeline(3, seed=1, output_type="pt", precision="fp32", return_dict=False)
    assert in_tuple.equal(tensors)
    with pytest.raises(ContractError, match="output_type must be one of"):
        sample(pipeline, steps=1, output_type="jpg")


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [
        # The batch changes only the order in which kernels add up float32: errors of 1e-7, which
        # grow to 1e-5 in the steps of these random networks.
        ("fp32", STEP / 20),
        # bfloat16 has 8 bits of mantissa, so another order of adding up may shift a value of 1 by
        # 1/256 in every layer.
        ("bf16", 16 / 256),
    ],
)
def test_a_seed_gives_its_image_at_any_batch_size(pipeline, precision, tolerance):  # trap 30
    options = {
        "precision": precision,
        "keep_intermediates": True,
        "sampler": ["ddpm", "euler-ancestral"],  # both draw noise at every step
        "guidance": 1.5,
    }

    def alike(first: CascadeOutput, second: CascadeOutput) -> bool:
        base, last = (
            (a[: len(b)] - b).abs()
            for a, b in (
                (first.intermediates["base"], second.intermediates["base"]),
                (first.images, second.images),
            )
        )
        # Between the stages images are rounded to 8 bits, where any error can move a pixel by a
        # whole step; the upsampler turns that into as much again, at that place.
        return bool(base.max() <= tolerance and last.max() <= 2 * STEP + tolerance) and bool(
            last.mean() <= tolerance / 2
        )

    together = sample(pipeline, 5, seed=7, batch_size=5, **options)
    for size in (1, 2, 3):
        apart = sample(pipeline, 5, seed=7, batch_size=size, **options)
        assert alike(together, apart)
        assert apart.labels == together.labels
        assert apart.seeds == together.seeds
    assert alike(together, sample(pipeline, seeds=[7], **options))
    other = sample(pipeline, seeds=[8], **options)
    assert (other.images[0] - together.images[0]).abs().mean() > 0.1
    assert not alike(together, other)


def test_the_whole_batch_comes_back_in_the_order_of_the_seeds(pipeline):  # trap 31
    seeds = [4, 0, 2, 9, 4]
    result = sample(pipeline, 5, seeds=seeds, batch_size=2)
    assert result.seeds == seeds
    assert result.images[0].sub(result.images[4]).abs().max() < 2 * STEP
    assert result.labels[0] == result.labels[4]
    for first in range(4):
        for second in range(first):
            assert (result.images[first] - result.images[second]).abs().mean() > 0.01


def test_seeds_count_up_from_the_first_and_are_drawn_where_none_is_given(pipeline):
    assert sample(pipeline, 3, seed=5, steps=1).seeds == [5, 6, 7]
    first, second = (sample(pipeline, 2, steps=1).seeds for _ in range(2))
    assert first != second
    assert first[1] == first[0] + 1
    drawn = sample(pipeline, 1, steps=1)
    assert sample(pipeline, 1, steps=1, seeds=drawn.seeds).images.equal(drawn.images)


def test_the_global_generator_is_neither_used_nor_moved(pipeline):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = sample(pipeline, 1, seed=3, sampler="ddpm")
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(1)
    assert sample(pipeline, 1, seed=3, sampler="ddpm").images.equal(first.images)


def test_no_noise_of_one_stage_is_that_of_another(pipeline, record):
    calls = {name: record(stage) for name, stage in pipeline.stages.items()}
    sample(pipeline, 1, seed=3, steps=1, augmentation_level=1.0)  # conditioned on pure noise
    base, up = calls["base"][0][0], calls["up"][0][0]
    condition = calls["up"][0][2].image
    enlarged = interpolate(base, size=condition.shape[-1], mode="bicubic")
    for a, b in ((condition, enlarged), (up.flatten()[:768], base.flatten())):
        correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert correlation.abs() < 0.2  # of 768 independent numbers: 0.04


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": [1]}, "got 1 seeds for 2 images"),
        ({"labels": ["cat"]}, "got 1 labels for 2 images"),
        ({"num_images": 0}, "num_images must be at least 1, got 0"),
    ],
)
def test_counts_that_differ_are_refused(pipeline, options, words):
    with pytest.raises(ContractError, match=words):
        sample(pipeline, **({"num_images": 2} | options))


# ---- labels -------------------------------------------------------------------------------------


def test_labels_drawn_from_seeds_do_not_depend_on_the_batch(pipeline):
    drawn = sample(pipeline, 40, seed=0, steps=1).labels
    again = [sample(pipeline, seeds=[seed], steps=1).labels[0] for seed in (3, 17)]
    assert again == [drawn[3], drawn[17]]
    for field, names in pipeline.labels.fields.items():
        assert {each[field] for each in drawn} == set(names)
    pairs = {(each["animal"], each["style"]) for each in drawn}
    assert len(pairs) == 4  # the fields are drawn apart


def test_labels_that_are_given_are_used_and_the_rest_is_drawn(pipeline, record):
    base = record(pipeline.stages["base"])
    labels = ["dog,twemoji", {"animal": "cat"}, {}]
    result = sample(pipeline, 3, seed=0, labels=labels, steps=1, batch_size=3)
    free = sample(pipeline, 3, seed=0, steps=1).labels
    assert result.labels[0] == {"animal": "dog", "style": "twemoji"}
    assert result.labels[1] == {"animal": "cat", "style": free[1]["style"]}
    assert result.labels[2] == free[2]
    encoded = pipeline.labels.batch(result.labels)
    assert base[0][2].labels.equal(encoded)
    one = sample(pipeline, 2, seed=0, labels="dog", steps=1).labels
    assert [each["animal"] for each in one] == ["dog", "dog"]


@pytest.mark.parametrize("labels", ["cta", {"animal": "cta"}, [{"animal": "cta"}]])
def test_an_unknown_class_offers_the_nearest(pipeline, labels):
    with pytest.raises(ContractError, match=r"unknown (class|animal) 'cta': did you mean 'cat'"):
        sample(pipeline, 1, labels=labels)


def test_labels_without_classes_are_refused():
    plain = quiet(CascadePipeline.from_stages({"base": unlabelled(size_px=16)}))
    with pytest.raises(ContractError, match="has no classes"):
        sample(plain, 1, labels="cat")
    assert sample(plain, 1, steps=1).labels == [{}]


def test_a_stage_with_fewer_fields_gets_those_that_it_knows(base_stage, record):
    torch.manual_seed(0)
    larger = Stage.build(
        Contract(size_px=32, low_res_px=16),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1},
        labels=LabelVocabulary({"style": ["twemoji", "sketch"]}),
        embedding_dim=8,
    )
    both = quiet(CascadePipeline.from_stages({"base": base_stage, "larger": larger}))
    calls = record(larger)
    sample(both, 2, seed=0, labels=["cat,twemoji", "cat,noto"], steps=1, batch_size=2)
    assert calls[0][2].labels.tolist() == [[0], [-1]]


def unlabelled(**contract) -> Stage:
    return Stage.build(
        Contract(**contract),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1},
        embedding_dim=8,
    )


# ---- settings of stages -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "base", "up"),
    [
        (None, 4, 4),
        (3, 3, 3),
        ([2, 5], 2, 5),
        ((2, None), 2, 4),
        ({"up": 6}, 4, 6),
        ({"base": 1, "up": 2}, 1, 2),
    ],
)
def test_steps_are_given_for_all_in_order_or_by_name(pipeline, value, base, up):
    calls = Calls()
    sample(pipeline, 1, steps=value, callback_on_step_end=calls)
    assert calls.of("base") == list(range(base))
    assert calls.of("up") == list(range(up))


def test_every_setting_reaches_its_stage(pipeline, monkeypatch):
    seen = {}
    for name, stage in pipeline.stages.items():
        monkeypatch.setattr(
            stage,
            "sample",
            lambda seeds, settings, name=name, stage=stage, **_: (
                seen.update({name: settings})
                or torch.zeros(len(seeds), 3, stage.contract.size_px, stage.contract.size_px)
            ),
        )
    sample(
        pipeline,
        sampler=["ddpm", "euler"],
        steps={"up": 7},
        guidance=(1.5, 2.5),
        augmentation_level=0.7,
    )
    base, up = (pipeline.stages[name].sampling for name in ("base", "up"))
    assert seen["base"] == base.changed(sampler="ddpm", guidance=1.5)
    assert seen["up"] == up.changed(sampler="euler", guidance=2.5, steps=7, augmentation_level=0.7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": [1, 2, 3]}, "steps: got 3 values for the 2 stages base, up"),
        ({"steps": {"middle": 3}}, "steps: no stage 'middle'"),
        ({"steps": 0}, "1 to 100"),
        ({"steps": [4, 101]}, "1 to 100.*got 101"),
        ({"sampler": "dimm"}, "unknown sampler 'dimm': did you mean 'ddim'"),
        ({"guidance": float("nan")}, "guidance must be a finite number"),
        ({"augmentation_level": 1.5}, r"\[0\.0, 1\.0\].*1\.5"),
        ({"callback_on_step_end_tensor_inputs": ["eps"]}, "'x_t', 'x0'.*'eps'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_step(pipeline, options, words):
    calls = Calls()
    with pytest.raises(ContractError, match=words) as error:
        sample(pipeline, 1, callback_on_step_end=calls, **options)
    assert "\n" not in str(error.value)
    assert calls.steps == []


def test_guidance_on_a_stage_that_never_dropped_anything_is_refused():
    plain = quiet(CascadePipeline.from_stages({"base": unlabelled(size_px=16)}))
    with pytest.raises(ContractError, match=r"guidance 2\.0 needs a stage .* label_drop"):
        sample(plain, 1, guidance=2.0)


def test_an_augmentation_level_without_an_upsampler_is_refused():  # no flag without effect, trap 7
    plain = quiet(CascadePipeline.from_stages({"base": unlabelled(size_px=16)}))
    with pytest.raises(ContractError, match="augmentation_level: no stage of this run"):
        sample(plain, 1, augmentation_level=0.3)


# ---- starting from an image ---------------------------------------------------------------------


def test_a_given_image_is_not_given_a_class_that_it_may_not_have(pipeline):
    small = sample(pipeline, 1, seed=5, keep_intermediates=True).intermediates["base"]
    assert sample(pipeline, image=small, seed=5).labels == [{}]


def test_a_later_stage_continues_exactly_where_the_earlier_ended(pipeline):
    whole = sample(pipeline, 3, seed=5, keep_intermediates=True)
    small = whole.intermediates["base"]
    for start_at in (None, "up"):
        again = sample(pipeline, image=small, seed=5, start_at=start_at, labels=whole.labels)
        assert again.images.equal(whole.images)
        assert again.intermediates == {}


def test_pictures_start_a_stage_as_their_pixels_do(pipeline):
    pixels = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    tensor = from_uint8(pixels.to(torch.uint8))
    pictures = [Image.fromarray(each.permute(1, 2, 0).numpy().astype(np.uint8)) for each in pixels]
    wanted = sample(pipeline, image=tensor, seed=1).images
    assert sample(pipeline, image=pictures, seed=1).images.equal(wanted)
    first = sample(pipeline, image=pictures[0], seed=1).images
    assert first.equal(sample(pipeline, image=tensor[0], seed=1).images)
    assert first.shape == (1, 3, 32, 32)


def test_settings_in_order_may_be_given_for_the_stages_that_run(pipeline):
    image = torch.zeros(1, 3, 16, 16)
    for steps in ([3], [9, 3], {"up": 3}, 3):
        calls = Calls()
        sample(pipeline, image=image, steps=steps, callback_on_step_end=calls)
        assert calls.stages == ["up"] * 3


def test_an_image_enters_where_its_size_fits():
    stages = {
        "base": unlabelled(size_px=16),
        "up": unlabelled(size_px=32, low_res_px=16),
        "top": unlabelled(size_px=64, low_res_px=32),
    }
    three = quiet(CascadePipeline.from_stages(stages))
    for size, wanted in ((16, ["up", "top"]), (32, ["top"])):
        calls = Calls()
        image = torch.zeros(1, 3, size, size)
        result = sample(three, image=image, steps=1, callback_on_step_end=calls)
        assert calls.stages == wanted
        assert result.images.shape[-1] == 64


@pytest.mark.parametrize(
    ("size", "start_at", "words"),
    [
        ((20, 20), None, "no stage takes an image of 20x20 px (up takes 16x16); resize it."),
        ((24, 16), None, "no stage takes an image of 24x16 px"),
        ((24, 16), "up", "stage 'up' takes 16x16 px, the image has 24x16; resize it."),
        ((16, 16), "base", "stage 'base' is a base stage and takes no image."),
        ((16, 16), "upp", "no stage 'upp' in this pipeline: did you mean 'up'?"),
    ],
)
def test_an_image_that_fits_nowhere_is_refused_in_one_line(pipeline, size, start_at, words):
    for image in (Image.new("RGB", size), torch.zeros(1, 3, *size[::-1])):
        with pytest.raises(ContractError) as error:
            sample(pipeline, image=image, start_at=start_at)
        assert words in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(16, 16), r"must be \(B, C, h, w\) in \[-1, 1\], got \(16, 16\)"),
        (torch.full((1, 3, 16, 16), 255.0), r"in \[255, 255\]"),
        (torch.full((1, 3, 16, 16), float("nan")), "nan"),
        (torch.zeros(0, 3, 16, 16), r"got \(0, 3, 16, 16\)"),
        (torch.zeros(1, 4, 16, 16), r"must be \(B, 3, H, W\), got \(1, 4, 16, 16\)"),
        ([], "at least one"),
        ([Image.new("RGB", (16, 16)), Image.new("RGB", (8, 8))], "the same size"),
    ],
)
def test_an_image_of_a_wrong_kind_is_refused_in_one_line(pipeline, image, words):
    with pytest.raises(ContractError, match=words) as error:
        sample(pipeline, image=image)
    assert "\n" not in str(error.value)


def test_starting_at_a_stage_without_an_image_is_refused(pipeline, upsampler):
    with pytest.raises(ContractError, match="start_at 'up' needs an image"):
        sample(pipeline, start_at="up")
    alone = quiet(CascadePipeline.from_stages({"up": upsampler}))
    with pytest.raises(ContractError, match="'up', needs an image to start from: 16 px"):
        sample(alone)


def test_intermediates_are_kept_only_when_asked_for_and_in_the_same_form(pipeline):
    assert sample(pipeline, 1, steps=1).intermediates == {}
    kept = sample(pipeline, 2, steps=1, keep_intermediates=True, output_type="pil").intermediates
    assert list(kept) == ["base"]
    assert [picture.size for picture in kept["base"]] == [(16, 16)] * 2


# ---- callback -----------------------------------------------------------------------------------


def test_the_callback_is_told_stage_step_timestep_tensors_and_seeds(pipeline):
    calls = Calls()
    result = sample(pipeline, 3, seed=5, steps=[2, 3], batch_size=2, callback_on_step_end=calls)
    assert calls.stages == ["base"] * 4 + ["up"] * 6
    assert calls.steps == [0, 1, 0, 1, 0, 1, 2, 0, 1, 2]
    assert calls.totals == [2] * 4 + [3] * 6
    assert calls.timesteps[:2] == [99, 49]
    assert [kwargs["seeds"] for kwargs in calls.kwargs] == [[5, 6]] * 2 + [[7]] * 2 + [
        [5, 6]
    ] * 3 + [[7]] * 3
    assert all(set(kwargs) == {"x_t", "x0", "seeds"} for kwargs in calls.kwargs)
    last = torch.cat([calls.kwargs[6]["x_t"], calls.kwargs[9]["x_t"]])
    assert last.clamp(-1, 1).equal(result.images)
    assert calls.kwargs[6]["x0"].equal(calls.kwargs[6]["x_t"])
    assert pipeline.current_stage is None


@pytest.mark.parametrize("wanted", [[], ["x0"], ["x_t"], ["x_t", "x0"]])
def test_the_callback_gets_only_the_tensors_it_asked_for(pipeline, wanted):
    calls = Calls()
    sample(
        pipeline,
        1,
        steps=1,
        callback_on_step_end=calls,
        callback_on_step_end_tensor_inputs=wanted,
    )
    assert [set(kwargs) for kwargs in calls.kwargs] == [{*wanted, "seeds"}] * 2


def test_the_x_t_that_the_callback_returns_goes_on(pipeline):
    def grey(pipe, step: int, timestep: int, kwargs: dict) -> dict[str, Tensor]:
        return {"x_t": torch.full_like(kwargs["x_t"], 0.25)}

    result = sample(pipeline, 2, seed=0, callback_on_step_end=grey, keep_intermediates=True)
    assert result.images.eq(0.25).all()
    assert result.intermediates["base"].eq(0.25).all()


@pytest.mark.parametrize("answer", [None, {}])
def test_a_callback_that_returns_nothing_changes_nothing(pipeline, answer):
    plain = sample(pipeline, 2, seed=0)
    watched = sample(pipeline, 2, seed=0, callback_on_step_end=lambda *_: answer)
    assert watched.images.equal(plain.images)


def test_the_progress_bar_counts_every_call_of_every_batch(pipeline, capsys):
    pipeline.set_progress_bar_config(disable=False)
    sample(pipeline, 3, steps=[2, 3], batch_size=2)
    shown = capsys.readouterr().err
    assert "base: 100%" in shown
    assert "4/4" in shown
    assert "up: 100%" in shown
    assert "6/6" in shown


# ---- swapping a stage ---------------------------------------------------------------------------


def test_a_replaced_stage_is_the_one_that_samples(pipeline, upsampler, fill_zeros):
    before = sample(pipeline, 1, seed=0, keep_intermediates=True)
    for parameter in upsampler.parameters():
        parameter.data.mul_(0.5)
    pipeline.replace_stage("up", upsampler)
    after = sample(pipeline, 1, seed=0, keep_intermediates=True)
    assert after.intermediates["base"].equal(before.intermediates["base"])
    assert not after.images.equal(before.images)
    assert pipeline.components["stages"]["up"] is upsampler


def test_a_stage_that_does_not_join_is_not_swapped_in(pipeline):
    with pytest.raises(ContractError, match="'base' gives size_px 8, 'up' takes low_res_px 16"):
        pipeline.replace_stage("base", unlabelled(size_px=8))
    with pytest.raises(ContractError, match=r"no stage 'upp' .* 'up'"):
        pipeline.replace_stage("upp", unlabelled(size_px=32, low_res_px=16))
    assert sample(pipeline, 1, steps=1).images.shape == (1, 3, 32, 32)


# ---- colouring ----------------------------------------------------------------------------------


@pytest.fixture
def colouring(colouriser, upsampler) -> CascadePipeline:
    return quiet(CascadePipeline.from_stages({"colour": colouriser, "up": upsampler}))


def test_a_grey_picture_is_coloured_and_then_enlarged(colouring, colouriser, upsampler):
    grey = Image.radial_gradient("L").resize((16, 16))
    calls = Calls()
    result = sample(
        colouring, image=grey, seed=1, keep_intermediates=True, callback_on_step_end=calls
    )
    assert calls.stages == ["colour"] * 4 + ["up"] * 4
    assert result.intermediates["colour"].shape == (1, 3, 16, 16)
    assert result.images.shape == (1, 3, 32, 32)
    coloured = colouriser.sample(
        [1], image=from_uint8(torch.from_numpy(np.array(grey)))[None, None], stream="stage colour"
    )
    assert result.intermediates["colour"].equal(coloured)
    assert result.images.equal(upsampler.sample([1], image=coloured, stream="stage up"))


def test_a_grey_picture_of_another_size_is_coloured_and_enlarged(colouring):
    assert sample(colouring, image=torch.zeros(1, 1, 8, 20), seed=1).images.shape[2:] == (16, 40)
    calls = Calls()
    colour = torch.zeros(1, 3, 16, 16)
    sample(colouring, image=colour, start_at="up", callback_on_step_end=calls)
    assert calls.stages == ["up"] * 4


def test_pictures_that_cannot_be_coloured_are_refused(colouring):
    with pytest.raises(ContractError, match=r"the first stage, 'colour', needs .*: grey 16 px"):
        sample(colouring)
    with pytest.raises(
        ContractError,
        match=r"18x16 px \(colour takes sides that are multiples of 4, up takes 16x16\); resize",
    ):
        sample(colouring, image=torch.zeros(1, 1, 16, 18))


def test_a_colouring_stage_follows_no_stage_that_gives_colours(base_stage, colouriser):
    with pytest.raises(ContractError, match="'base' gives channels 3, 'colour' takes channels 1"):
        CascadePipeline.from_stages({"base": base_stage, "colour": colouriser})
