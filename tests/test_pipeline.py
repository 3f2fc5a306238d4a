"""Sampling with a pipeline; saving is in saving/test_pipelines.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.imaging.writing import from_uint8, to_uint8
from cascade.pipeline import CascadeOutput, CascadePipeline
from cascade.sampling.overrides import Overrides
from cascade.space import Space
from cascade.stage import Run

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


def stage(size_px, *conditions: Condition, small_px=None, **space) -> DiffusionStage:
    """A tiny stage of random weights; `small_px` adds a low-resolution image of that size."""
    if small_px is not None:
        conditions = (*conditions, LowResolution(size_px=small_px))
    torch.manual_seed(0)
    return DiffusionStage.build(
        Contract(Space(size_px=size_px, **space), conditions),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1},
        embedding_dim=8,
    ).eval()


def alone(*arguments, **options) -> CascadePipeline:
    """A pipeline of one such stage."""
    return quiet(CascadePipeline.from_stages({"base": stage(*arguments, **options)}))


class Calls:
    """A callback that records its arguments."""

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
    tensors = sample(pipeline, num_images=3, seed=1).images
    assert tensors.shape == (3, 3, 32, 32)
    assert tensors.dtype == torch.float32
    assert -1 <= tensors.min() < tensors.max() <= 1
    arrays = sample(pipeline, num_images=3, seed=1, output_type="np").images
    assert np.array_equal(arrays, ((tensors + 1) / 2).permute(0, 2, 3, 1).numpy())
    pictures = sample(pipeline, num_images=3, seed=1, output_type="pil").images
    pixels = np.stack([np.asarray(picture) for picture in pictures])
    assert np.array_equal(pixels, to_uint8(tensors).permute(0, 2, 3, 1).numpy())
    (in_tuple,) = pipeline(
        num_images=3, seed=1, output_type="pt", precision="fp32", return_dict=False
    )
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
def test_a_seed_gives_its_image_at_any_batch_size(pipeline, precision, tolerance):
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

    together = sample(pipeline, num_images=5, seed=7, batch_size=5, **options)
    for size in (1, 2, 3):
        apart = sample(pipeline, num_images=5, seed=7, batch_size=size, **options)
        assert alike(together, apart)
        assert apart.labels == together.labels
        assert apart.seeds == together.seeds
    assert alike(together, sample(pipeline, seeds=[7], **options))
    other = sample(pipeline, seeds=[8], **options)
    assert (other.images[0] - together.images[0]).abs().mean() > 0.1
    assert not alike(together, other)


def test_the_whole_batch_comes_back_in_the_order_of_the_seeds(pipeline):
    seeds = [4, 0, 2, 9, 4]
    result = sample(pipeline, num_images=5, seeds=seeds, batch_size=2)
    assert result.seeds == seeds
    assert result.images[0].sub(result.images[4]).abs().max() < 2 * STEP
    assert result.labels[0] == result.labels[4]
    for first in range(4):
        for second in range(first):
            assert (result.images[first] - result.images[second]).abs().mean() > 0.01


def test_seeds_count_up_from_the_first_and_are_drawn_where_none_is_given(pipeline):
    assert sample(pipeline, num_images=3, seed=5, steps=1).seeds == [5, 6, 7]
    first, second = (sample(pipeline, num_images=2, steps=1).seeds for _ in range(2))
    assert first != second
    assert first[1] == first[0] + 1
    drawn = sample(pipeline, num_images=1, steps=1)
    assert sample(pipeline, num_images=1, steps=1, seeds=drawn.seeds).images.equal(drawn.images)


def test_the_global_generator_is_neither_used_nor_moved(pipeline):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = sample(pipeline, num_images=1, seed=3, sampler="ddpm")
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(1)
    assert sample(pipeline, num_images=1, seed=3, sampler="ddpm").images.equal(first.images)


def test_no_noise_of_one_stage_is_that_of_another(pipeline, record):
    calls = {name: record(stage) for name, stage in pipeline.stages.items()}
    sample(
        pipeline, num_images=1, seed=3, steps=1, augmentation_level=1.0
    )  # conditioned on pure noise
    base, up = calls["base"][0][0], calls["up"][0][0]
    condition = calls["up"][0][2].channels["low_resolution"].image
    enlarged = interpolate(base, size=condition.shape[-1], mode="bicubic")
    for a, b in ((condition, enlarged), (up.flatten()[:768], base.flatten())):
        correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert correlation.abs() < 0.2  # of 768 independent numbers: 0.04


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": [1]}, "got 1 seeds for 2 images"),
        ({"labels": ["cat"]}, "got 1 label for 2 images; give one for all"),
        ({"num_images": 0}, "num_images must be at least 1, got 0"),
    ],
)
def test_counts_that_differ_are_refused(pipeline, options, words):
    with pytest.raises(ContractError, match=words):
        sample(pipeline, **({"num_images": 2} | options))


# ---- labels -------------------------------------------------------------------------------------


def test_labels_drawn_from_seeds_do_not_depend_on_the_batch(pipeline):
    drawn = sample(pipeline, num_images=40, seed=0, steps=1).labels
    again = [sample(pipeline, seeds=[seed], steps=1).labels[0] for seed in (3, 17)]
    assert again == [drawn[3], drawn[17]]
    for field, names in pipeline.labels.fields.items():
        assert {each[field] for each in drawn} == set(names)
    pairs = {(each["animal"], each["style"]) for each in drawn}
    assert len(pairs) == 4  # the fields are drawn apart


def test_labels_that_are_given_are_used_and_the_rest_is_drawn(pipeline, record):
    base = record(pipeline.stages["base"])
    labels = ["dog,twemoji", {"animal": "cat"}, {}]
    result = sample(pipeline, num_images=3, seed=0, labels=labels, steps=1, batch_size=3)
    free = sample(pipeline, num_images=3, seed=0, steps=1).labels
    assert result.labels[0] == {"animal": "dog", "style": "twemoji"}
    assert result.labels[1] == {"animal": "cat", "style": free[1]["style"]}
    assert result.labels[2] == free[2]
    encoded = pipeline.labels.batch(result.labels)
    assert base[0][2].vectors["labels"].equal(encoded)
    one = sample(pipeline, num_images=2, seed=0, labels="dog", steps=1).labels
    assert [each["animal"] for each in one] == ["dog", "dog"]


@pytest.mark.parametrize("labels", ["cta", {"animal": "cta"}, [{"animal": "cta"}]])
def test_an_unknown_class_offers_the_nearest(pipeline, labels):
    with pytest.raises(ContractError, match=r"unknown (class|animal) 'cta': did you mean 'cat'"):
        sample(pipeline, num_images=1, labels=labels)


def test_labels_without_classes_are_refused_in_one_line():
    plain = alone(16)
    with pytest.raises(
        ContractError, match=r"no stage .* reads 'labels'; its inputs: none"
    ) as error:
        sample(plain, num_images=1, labels="cat")
    assert "\n" not in str(error.value)
    assert sample(plain, num_images=1, steps=1).labels == [{}]
    assert plain.labels is None


def test_a_stage_with_fewer_names_gets_those_that_it_knows(base_stage, record):
    larger = stage(32, Labels(fields={"style": ["twemoji", "sketch"]}), small_px=16)
    both = quiet(CascadePipeline.from_stages({"base": base_stage, "larger": larger}))
    calls = record(larger)
    sample(both, num_images=2, seed=0, labels=["cat,twemoji", "cat,noto"], steps=1, batch_size=2)
    assert calls[0][2].vectors["labels"].tolist() == [[0], [-1]]


@pytest.mark.parametrize("name", ["mask", "lables"])
def test_inputs_that_no_stage_reads_are_refused_with_those_that_are(pipeline, name):
    with pytest.raises(ContractError, match=f"reads '{name}'; its inputs: labels, image") as error:
        sample(pipeline, num_images=1, inputs={name: [0]})
    assert "\n" not in str(error.value)


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
    sample(pipeline, num_images=1, steps=value, callback_on_step_end=calls)
    assert calls.of("base") == list(range(base))
    assert calls.of("up") == list(range(up))


@pytest.fixture
def settings_of_runs(monkeypatch) -> dict:
    """The settings with which stages ran, by stream; they draw nothing."""
    settings = {}

    def run(self, seeds, inputs=None, previous=None, run=None):
        settings[run.stream] = run.settings or self.sampling
        return torch.zeros(len(seeds), self.space.channels, *self.space.size)

    monkeypatch.setattr(DiffusionStage, "run", run)
    return settings


def test_every_setting_reaches_its_stage(pipeline, settings_of_runs):
    options = {
        "sampler": ["ddpm", "euler"],
        "steps": {"up": 7},
        "guidance": (1.5, 2.5),
        "augmentation_level": 0.7,
        "temperature": {"up": 0.5},
        "threshold": "none",
        "variance": ["large", None],
        "guidance_interval": {"base": (0.5, 2.0)},
    }
    result = sample(pipeline, **options)
    base, up = (pipeline.stages[name].sampling for name in ("base", "up"))
    base = base.changed(
        sampler="ddpm",
        guidance=1.5,
        threshold="none",
        variance="large",
        guidance_interval=(0.5, 2.0),
    )
    up = up.changed(
        sampler="euler",
        guidance=2.5,
        steps=7,
        augmentation_level=0.7,
        temperature=0.5,
        threshold="none",
    )
    assert settings_of_runs == {"stage base": base, "stage up": up}
    assert result.settings == {"base": base.to_dict(), "up": up.to_dict()}


@pytest.mark.parametrize(
    ("value", "base", "up"),
    [
        ((0.5, 2.0), (0.5, 2.0), (0.5, 2.0)),
        ([0.5, 2.0], (0.5, 2.0), (0.5, 2.0)),
        ([(0.5, 2.0), [1, 3]], (0.5, 2.0), (1, 3)),
        ([None, (1, 3)], None, (1, 3)),
    ],
)
def test_an_interval_is_one_value_and_not_one_for_each_stage(
    pipeline, settings_of_runs, value, base, up
):
    sample(pipeline, guidance_interval=value)
    assert settings_of_runs["stage base"].guidance_interval == base
    assert settings_of_runs["stage up"].guidance_interval == up


def test_overrides_reach_their_stages_and_values_of_the_call_go_before_them(
    pipeline, settings_of_runs
):
    overrides = Overrides({"all": {"steps": 7}, "up": {"eta": 0.5, "guidance": 2.0, "steps": 9}})
    sample(pipeline, overrides=overrides)
    base, up = (pipeline.stages[name].sampling for name in ("base", "up"))
    assert settings_of_runs["stage base"] == base.changed(steps=7)
    assert settings_of_runs["stage up"] == up.changed(steps=9, eta=0.5, guidance=2.0)
    sample(pipeline, overrides=overrides, steps=3)
    assert settings_of_runs["stage base"] == base.changed(steps=3)
    assert settings_of_runs["stage up"] == up.changed(steps=3, eta=0.5, guidance=2.0)


def test_overrides_of_stages_that_do_not_run_are_checked_and_left_out(pipeline, settings_of_runs):
    image = torch.zeros(1, 3, 16, 16)
    sample(pipeline, image=image, overrides=Overrides({"base": {"steps": 1}, "up": {"steps": 2}}))
    assert {stream: each.steps for stream, each in settings_of_runs.items()} == {"stage up": 2}
    with pytest.raises(
        ContractError, match="no stage 'bsae' in this pipeline: did you mean 'base'"
    ):
        sample(pipeline, image=image, overrides=Overrides({"bsae": {"steps": 1}}))


def test_settings_of_one_call_are_not_those_of_the_next(pipeline):
    first = sample(pipeline, num_images=1, seed=0)
    sample(
        pipeline,
        num_images=1,
        seed=0,
        steps=1,
        sampler="ddpm",
        guidance=3.0,
        augmentation_level=0.9,
    )
    again = sample(pipeline, num_images=1, seed=0)
    assert again.settings == first.settings
    assert again.images.equal(first.images)


def test_a_pipeline_with_other_settings_leaves_the_original_as_it_was(pipeline):
    before = {name: stage.sampling for name, stage in pipeline.stages.items()}
    images = sample(pipeline, num_images=1, seed=0).images
    other = quiet(pipeline.with_sampling(Overrides({"up": {"steps": 2}})))
    assert {name: stage.sampling for name, stage in pipeline.stages.items()} == before
    assert other.stages["up"].sampling == before["up"].changed(steps=2)
    assert sample(pipeline, num_images=1, seed=0).images.equal(images)
    changed = sample(other, num_images=1, seed=0).images
    assert changed.equal(sample(pipeline, num_images=1, seed=0, steps={"up": 2}).images)
    assert not changed.equal(images)


def test_options_of_a_sampler_that_is_exchanged_are_left_behind(pipeline, settings_of_runs):
    eta = quiet(pipeline.with_sampling(Overrides({"all": {"eta": 0.5}})))
    assert eta.stages["base"].sampling.options == {"eta": 0.5}
    sample(eta, num_images=1, sampler={"base": "ddpm"})
    assert settings_of_runs["stage base"].options == {}
    assert settings_of_runs["stage up"].options == {"eta": 0.5}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": [1, 2, 3]}, "steps: got 3 values for the 2 stages base, up"),
        ({"steps": {"middle": 3}}, "steps: no stage 'middle'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": [4, 101]}, "1 to 100.*got 101"),
        ({"sampler": "dimm"}, "unknown sampler 'dimm': did you mean 'ddim'"),
        ({"guidance": float("nan")}, "guidance must be a finite number"),
        ({"augmentation_level": 1.5}, "augmentation_level must be from 0 to 1, got 1.5"),
        ({"stps": 3}, "unknown argument 'stps': did you mean 'steps'"),
        ({"sampler": "ddpm", "eta": 0.5}, "'eta' is an option of ddim, not of ddpm"),
        ({"guidance_interval": [2.0, 1.0]}, r"guidance_interval must be 0 <= low < high"),
        ({"temperature": {"base": 0.5}}, "temperature: stage 'base' takes no image"),
        ({"augmentation_level": [0.1, 0.2]}, "augmentation_level: stage 'base' takes no image"),
        ({"callback_on_step_end_tensor_inputs": ["eps"]}, "'x_t', 'x0'.*'eps'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_step(pipeline, options, words):
    calls = Calls()
    with pytest.raises(ContractError, match=words) as error:
        sample(pipeline, num_images=1, callback_on_step_end=calls, **options)
    assert "\n" not in str(error.value)
    assert calls.steps == []


def test_guidance_on_a_stage_that_never_dropped_anything_is_refused():
    with pytest.raises(ContractError, match=r"guidance 2\.0 needs a condition .* dropped"):
        sample(alone(16), num_images=1, guidance=2.0)


def test_guidance_for_all_stages_passes_over_those_that_never_dropped_anything(base_stage):
    pipeline = quiet(
        CascadePipeline.from_stages({"base": base_stage, "up": stage(32, small_px=16)})
    )
    result = sample(pipeline, num_images=1, guidance=2.0, guidance_interval=(0.1, 5.0))
    assert result.settings["base"]["guidance"] == 2.0
    assert result.settings["up"]["guidance"] == 1.0
    assert "guidance_interval" not in result.settings["up"]
    with pytest.raises(ContractError, match=r"guidance 2\.0 needs a condition .* dropped"):
        sample(pipeline, num_images=1, guidance={"up": 2.0})


def test_keep_colours_for_all_stages_passes_over_those_without_an_image(pipeline):
    result = sample(pipeline, num_images=1, keep_colours=True)
    assert "keep_colours" not in result.settings["base"]
    assert result.settings["up"]["keep_colours"] is True
    for options in ({"keep_colours": {"base": True}}, {"keep_colours": True, "stop_at": "base"}):
        with pytest.raises(ContractError, match="keep_colours true is for stages that upscale"):
            sample(pipeline, num_images=1, **options)


@pytest.mark.parametrize("name", ["augmentation_level", "temperature"])
def test_settings_of_images_in_a_pipeline_without_images_are_refused(name):
    with pytest.raises(ContractError, match=f"{name}: no stage of this run takes an image"):
        sample(alone(16), num_images=1, **{name: 0.3})


# ---- starting from an image ---------------------------------------------------------------------


def test_a_given_image_is_not_given_a_class_that_it_may_not_have(pipeline):
    small = sample(pipeline, num_images=1, seed=5, keep_intermediates=True).intermediates["base"]
    assert sample(pipeline, image=small, seed=5).labels == [{}]


def test_a_later_stage_continues_exactly_where_the_earlier_ended(pipeline):
    whole = sample(pipeline, num_images=3, seed=5, keep_intermediates=True)
    small = whole.intermediates["base"]
    for start_at in (None, "up"):
        again = sample(pipeline, image=small, seed=5, start_at=start_at, labels=whole.labels)
        assert again.images.equal(whole.images)
        assert again.intermediates == {}


def test_a_run_may_stop_at_an_earlier_stage(pipeline):
    whole = sample(pipeline, num_images=2, seed=5, keep_intermediates=True)
    small = sample(pipeline, num_images=2, seed=5, stop_at="base", steps={"up": 9})
    assert small.images.equal(whole.intermediates["base"])
    assert list(small.settings) == ["base"]
    assert sample(pipeline, num_images=2, seed=5, stop_at="up").images.equal(whole.images)
    with pytest.raises(ContractError, match="no stage 'bas' in this pipeline: did you mean 'base'"):
        sample(pipeline, stop_at="bas")
    with pytest.raises(ContractError, match="stop_at 'base' comes before 'up', the stage at which"):
        sample(pipeline, image=whole.intermediates["base"], stop_at="base")


def test_pictures_start_a_stage_as_their_pixels_do(pipeline):
    pixels = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    tensor = from_uint8(pixels.to(torch.uint8))
    pictures = [Image.fromarray(each.permute(1, 2, 0).numpy().astype(np.uint8)) for each in pixels]
    expected = sample(pipeline, image=tensor, seed=1).images
    assert sample(pipeline, image=pictures, seed=1).images.equal(expected)
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
    stages = {"base": stage(16), "up": stage(32, small_px=16), "top": stage(64, small_px=32)}
    three = quiet(CascadePipeline.from_stages(stages))
    for size, names in ((16, ["up", "top"]), (32, ["top"])):
        calls = Calls()
        image = torch.zeros(1, 3, size, size)
        result = sample(three, image=image, steps=1, callback_on_step_end=calls)
        assert calls.stages == names
        assert result.images.shape[-1] == 64


@pytest.mark.parametrize(
    ("size", "start_at", "words"),
    [
        (
            (20, 20),
            None,
            "no stage takes an image of 20x20 px (up takes 16 px); resize it, or call "
            "upscale or colourise, which take any size.",
        ),
        ((24, 16), None, "no stage takes an image of 24x16 px"),
        ((24, 16), "up", "stage 'up' takes 16 px, the image has 24x16; resize it."),
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
    assert sample(pipeline, num_images=1, steps=1).intermediates == {}
    kept = sample(
        pipeline, num_images=2, steps=1, keep_intermediates=True, output_type="pil"
    ).intermediates
    assert list(kept) == ["base"]
    assert [picture.size for picture in kept["base"]] == [(16, 16)] * 2


# ---- callback -----------------------------------------------------------------------------------


def test_the_callback_gets_stage_step_timestep_tensors_and_seeds(pipeline):
    calls = Calls()
    result = sample(
        pipeline, num_images=3, seed=5, steps=[2, 3], batch_size=2, callback_on_step_end=calls
    )
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


@pytest.mark.parametrize("names", [[], ["x0"], ["x_t"], ["x_t", "x0"]])
def test_the_callback_gets_only_the_tensors_it_asked_for(pipeline, names):
    calls = Calls()
    sample(
        pipeline,
        steps=1,
        callback_on_step_end=calls,
        callback_on_step_end_tensor_inputs=names,
    )
    assert [set(kwargs) for kwargs in calls.kwargs] == [{*names, "seeds"}] * 2


def test_the_x_t_that_the_callback_returns_goes_on(pipeline):
    def grey(pipe, step: int, timestep: int, kwargs: dict) -> dict[str, Tensor]:
        return {"x_t": torch.full_like(kwargs["x_t"], 0.25)}

    result = sample(
        pipeline, num_images=2, seed=0, callback_on_step_end=grey, keep_intermediates=True
    )
    assert result.images.eq(0.25).all()
    assert result.intermediates["base"].eq(0.25).all()


@pytest.mark.parametrize("answer", [None, {}])
def test_a_callback_that_returns_nothing_changes_nothing(pipeline, answer):
    plain = sample(pipeline, num_images=2, seed=0)
    watched = sample(pipeline, num_images=2, seed=0, callback_on_step_end=lambda *_: answer)
    assert watched.images.equal(plain.images)


def test_the_progress_bar_counts_every_call_of_every_batch(pipeline, capsys):
    pipeline.set_progress_bar_config(disable=False)
    sample(pipeline, num_images=3, steps=[2, 3], batch_size=2)
    text = capsys.readouterr().err
    assert "base: 100%" in text
    assert "4/4" in text
    assert "up: 100%" in text
    assert "6/6" in text


# ---- swapping a stage ---------------------------------------------------------------------------


def test_a_replaced_stage_is_the_one_that_samples(pipeline, upsampler, fill_zeros):
    before = sample(pipeline, num_images=1, seed=0, keep_intermediates=True)
    for parameter in upsampler.parameters():
        parameter.data.mul_(0.5)
    pipeline.replace_stage("up", upsampler)
    after = sample(pipeline, num_images=1, seed=0, keep_intermediates=True)
    assert after.intermediates["base"].equal(before.intermediates["base"])
    assert not after.images.equal(before.images)
    assert pipeline.components["stages"]["up"] is upsampler


def test_a_stage_that_does_not_join_is_not_swapped_in(pipeline):
    with pytest.raises(ContractError, match="'base' gives size_px 8x8, 'up' takes 16x16"):
        pipeline.replace_stage("base", stage(8))
    with pytest.raises(ContractError, match=r"no stage 'upp' .* 'up'"):
        pipeline.replace_stage("upp", stage(32, small_px=16))
    assert sample(pipeline, num_images=1, steps=1).images.shape == (1, 3, 32, 32)


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
    tensor = from_uint8(torch.from_numpy(np.array(grey)))[None, None]
    coloured = colouriser.run([1], Inputs({"image": tensor}), run=Run(stream="stage colour"))
    assert result.intermediates["colour"].equal(coloured)
    enlarged = upsampler.run([1], previous=coloured, run=Run(stream="stage up"))
    assert result.images.equal(enlarged)


def test_a_grey_picture_of_another_size_is_coloured_and_enlarged(colouring):
    for height, width in ((8, 20), (16, 18), (5, 7)):
        image = torch.zeros(1, 1, height, width)
        shape = sample(colouring, image=image, seed=1, steps=1).images.shape
        assert shape == (1, 3, 2 * height, 2 * width)
    calls = Calls()
    colour = torch.zeros(1, 3, 16, 16)
    sample(colouring, image=colour, start_at="up", callback_on_step_end=calls)
    assert calls.stages == ["up"] * 4


def test_a_picture_that_is_missing_or_cannot_be_coloured_is_refused(colouring):
    with pytest.raises(
        ContractError, match=r"the first stage, 'colour', needs .*: greyscale 16 px"
    ):
        sample(colouring)
    with pytest.raises(
        ContractError, match=r"to colourise must be \(B, 1, H, W\).*\(1, 2, 16, 16\)"
    ):
        sample(colouring, image=torch.zeros(1, 2, 16, 16))


def test_a_colouring_stage_follows_no_stage_that_gives_colours(base_stage, colouriser):
    with pytest.raises(ContractError, match="'base' gives channels 3, 'colour' takes 1"):
        CascadePipeline.from_stages({"base": base_stage, "colour": colouriser})


# ---- spaces -------------------------------------------------------------------------------------


def test_stages_of_other_sizes_channels_and_ranges_work_in_a_chain():
    bands = {"channels": 5, "range": (0, 10_000), "unit": "reflectance"}
    stages = {"base": stage((12, 20), **bands), "up": stage((24, 40), small_px=(12, 20), **bands)}
    wide = quiet(CascadePipeline.from_stages(stages))
    whole = sample(wide, num_images=2, seed=3, steps=2, keep_intermediates=True)
    assert whole.images.shape == (2, 5, 24, 40)
    small = whole.intermediates["base"]
    assert small.shape == (2, 5, 12, 20)
    assert sample(wide, image=small, seed=3, steps=2).images.equal(whole.images)
    with pytest.raises(ContractError, match=r"12x20 px \(up takes 20x12 px\); resize it"):
        sample(wide, image=small.transpose(2, 3))


def test_inputs_do_not_hide_arguments_of_their_own(cascade):
    with pytest.raises(ContractError, match="labels is an argument of its own"):
        cascade(num_images=1, inputs={"labels": ["cat"]})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overrides": {"all": {"steps": 1}}}, r"overrides must be Overrides\(\{...\}\), got dict"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"inputs": 3}, "inputs must be a mapping by name, got 3"),
    ],
)
def test_options_of_a_wrong_kind_are_refused(cascade, options, words):
    with pytest.raises(ContractError, match=words):
        cascade(num_images=1, **options)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_only_grey_and_rgb_images_become_pictures(channels, fill_zeros):
    stage = DiffusionStage.build(
        Contract(Space(size_px=8, channels=channels)),
        NoiseProcess(NoiseSchedule(train_steps=10)),
        network_options={"channels": (8,), "blocks": 1},
    )
    pipeline = CascadePipeline.from_stages({"base": fill_zeros(stage).eval()})
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(num_images=1, steps=1, output_type="pt").images.shape == (1, channels, 8, 8)
    if channels == 1:
        assert pipeline(num_images=1, steps=1).images[0].mode == "L"
    else:
        with pytest.raises(ContractError, match=f"these images have {channels}"):
            pipeline(num_images=1, steps=1)


def test_a_list_of_labels_makes_an_image_of_each(pipeline):
    result = pipeline(labels=["cat", "dog"], seed=3, output_type="pt")
    assert len(result.images) == 2
    assert result.images[1].equal(
        pipeline(labels=["cat", "dog"], num_images=2, seed=3, output_type="pt").images[1]
    )


def test_a_pipeline_names_its_stages(pipeline):
    lines = repr(pipeline).splitlines()
    assert lines[0] == "CascadePipeline of these stages:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == pipeline.stages.names
    assert " to 32 px, 0." in lines[-1]
