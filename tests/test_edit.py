"""`pipeline.edit`: what stays, what is made, and what does not fit."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.errors import ContractError, SettingsError
from cascade.pipeline import CascadePipeline
from cascade.training.students import student_of

LABELS = "cat,noto"


@pytest.fixture
def pipeline(cascade) -> CascadePipeline:
    """A chain from noise to 32 px."""
    cascade.set_progress_bar_config(disable=True)
    return cascade


@pytest.fixture
def filling(inpainter) -> CascadePipeline:
    """An inpainter of any size."""
    made = CascadePipeline.from_stages({"fill": inpainter})
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


@pytest.fixture
def mask() -> torch.Tensor:
    hole = torch.zeros(32, 32, dtype=torch.bool)
    hole[5:20, 9:23] = True
    return hole


def test_known_pixels_are_exact_after_the_whole_chain(pipeline, image, mask):
    result = pipeline.edit(
        image, mask, labels=LABELS, seed=3, num_images=2, resamplings=2, jump_length=2,
        keep_intermediates=True,
    )  # fmt: skip
    assert result.images.shape == (2, 3, 32, 32)
    assert result.images[..., ~mask].equal(image[:, ~mask].expand(2, -1, -1))
    first, second = result.images[..., mask]
    assert not first.allclose(second, atol=0.05)
    assert not first.allclose(image[:, mask], atol=0.05)
    assert result.seeds == [3, 4]
    assert result.labels == [{"class": "cat", "style": "noto"}] * 2
    assert [each.size for each in result.intermediates["base"]] == [(16, 16)] * 2


def test_the_same_seed_gives_the_same_image_at_any_batch_size(pipeline, image, mask):
    options = {"labels": LABELS, "resamplings": 2, "jump_length": 1}
    three = {"seeds": [5, 6, 7], "num_images": 3, **options}
    together = pipeline.edit(image, mask, batch_size=3, **three).images
    alone = pipeline.edit(image, mask, seed=6, **options).images
    split = pipeline.edit(image, mask, batch_size=2, **three).images
    for other in (alone[0], split[1]):
        torch.testing.assert_close(other, together[1], rtol=0, atol=1e-4)


def test_a_full_mask_is_plain_sampling(pipeline, image):
    everything = torch.ones(32, 32, dtype=torch.bool)
    edited = pipeline.edit(image, everything, labels=LABELS, seed=2).images
    plain = pipeline(labels=LABELS, seed=2, output_type="pt").images
    assert edited.equal(plain)


def test_an_upsampler_needs_something_around_the_hole(upsampler, image):
    enlarging = CascadePipeline.from_stages({"up": upsampler})
    enlarging.set_progress_bar_config(disable=True)
    everything = torch.ones(32, 32, dtype=torch.bool)
    hole = everything.clone()
    hole[:, 16:] = False
    cases = [(everything, {}), (everything, {"feather_px": 3}), (hole, {"window_px": 4})]
    for mask, settings in cases:
        with pytest.raises(SettingsError, match="the hole has no surroundings that this pipel"):
            enlarging.edit(image, mask, **settings)
    for mask, settings in ((everything, {"strength": 0.5}), (hole, {}), (~everything, {})):
        assert enlarging.edit(image, mask, **settings).images.isfinite().all()


def test_an_empty_mask_gives_the_picture_itself_and_says_so(pipeline, image, caplog):
    nothing = torch.zeros(32, 32, dtype=torch.bool)
    with caplog.at_level(logging.WARNING, "cascade"):
        result = pipeline.edit(image, nothing, num_images=2)
    assert result.images.equal(image.expand(2, -1, -1, -1))
    assert "the mask is empty, so the image stays as it is" in caplog.text
    remarks: list[str] = []
    pipeline.edit(image, nothing, on_remark=remarks.append)
    assert remarks == ["the mask is empty, so the image stays as it is"]


def test_a_low_strength_stays_near_the_picture(pipeline, image):
    far, near = (
        pipeline.edit(image, strength=strength, labels=LABELS, seed=0).images[0]
        for strength in (1.0 - 1e-9, 0.25)
    )
    assert (near - image).abs().mean() < 0.8 * (far - image).abs().mean()


def test_resampling_changes_the_hole_and_only_the_stage_from_noise_does_it(pipeline, image, mask):
    steps: dict[str, int] = {}

    def count(host, step, t, kwargs):
        steps[host.current_stage] = steps.get(host.current_stage, 0) + 1

    pipeline.edit(
        image, mask, labels=LABELS, resamplings=3, jump_length=2, callback_on_step_end=count
    )
    assert steps == {"base": 12, "upsampler": 4}


def test_pictures_of_any_size_keep_all_that_is_outside_the_mask(pipeline):
    draw = np.random.default_rng(0)
    picture = Image.fromarray(draw.integers(0, 256, (50, 71, 3)).astype(np.uint8))
    mask = np.zeros((50, 71), bool)
    mask[10:30, 40:66] = True
    (result,) = pipeline.edit(picture, mask, resamplings=1, seed=1).images
    assert result.size == (71, 50)
    assert (np.asarray(result)[~mask] == np.asarray(picture)[~mask]).all()
    assert not (np.asarray(result)[mask] == np.asarray(picture)[mask]).all()
    wider = pipeline.edit(picture, uncrop=(8, 0, 5, 3), resamplings=1).images[0]
    assert wider.size == (84, 53)
    assert (np.asarray(wider)[:50, 8:79] == np.asarray(picture)).all()


def test_an_inpainter_edits_at_full_resolution(filling):
    picture = torch.rand(3, 45, 61, generator=torch.Generator().manual_seed(2)) * 1.6 - 0.8
    mask = torch.zeros(45, 61, dtype=torch.bool)
    mask[20:24, 3:40] = True
    result = filling.edit(picture, mask, seed=4, num_images=2).images
    assert result.shape == (2, 3, 45, 61)
    assert result[..., ~mask].equal(picture[:, ~mask].expand(2, -1, -1))
    assert not result[0][:, mask].allclose(result[1][:, mask], atol=0.05)


def test_labels_that_are_left_out_stay_open(pipeline, image, mask):
    result = pipeline.edit(image, mask, resamplings=1)
    assert all(not any(each.values()) for each in result.labels)


def test_progress_ends_at_the_total_of_all_stages(pipeline, image, mask):
    reports = []
    pipeline.edit(
        image, mask, num_images=2, batch_size=1, resamplings=2,
        progress=lambda done, total: reports.append((done, total)),
    )  # fmt: skip
    assert reports == sorted(reports)
    assert reports[-1][0] == reports[-1][1] == 2000


def test_prompts_steer_what_is_drawn(drawing):
    image = torch.zeros(3, 32, 32)
    mask = torch.ones(32, 32, dtype=torch.bool)
    mask[:4] = False
    first, second = (
        drawing.edit(image, mask, prompt, seed=0, resamplings=1) for prompt in ("cat", "a dog")
    )
    assert first.prompts == ["cat"]
    assert not first.images.allclose(second.images, atol=1e-3)


# ---- what does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": torch.zeros(8, 8, dtype=torch.bool)}, "mask has 8x8 px, but the image has 32x32"),
        ({"mask": None}, "nothing to inpaint is marked"),
        ({"sampler": "euler"}, "only the samplers ddim, ddpm and euler-maruyama can repeat"),
        ({"reuse": 2}, "reuse must be 1"),
        ({"start_at": "upsampler"}, "start_at has no effect here"),
        ({"stop_at": "base"}, "stop_at has no effect here"),
        ({"masks": 1}, "unknown argument 'masks': did you mean 'mask'"),
        ({"num_inference_steps": 3}, "use steps"),
        ({"prompt": "a cat"}, "this pipeline takes no prompt"),
        ({"strength": 2}, "strength must be above 0"),
        ({"progress": 3}, "progress must be a function"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(pipeline, image, mask, arguments, message):
    with pytest.raises(ContractError, match=message) as error:
        pipeline.edit(**{"image": image, "mask": mask, **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": [None, "euler"], "strength": 0.5}, "samplers of diffusers cannot start from"),
        ({"sampler": ["ode", None]}, "only the samplers ddim, ddpm and euler-maruyama can repeat"),
        ({"reuse": [2, 1]}, "reuse must be 1 to repeat steps"),
    ],
)
def test_no_stage_starts_if_the_settings_of_one_do_not_fit(
    pipeline, image, mask, arguments, message
):
    steps: list[int] = []
    with pytest.raises(SettingsError, match=message):
        pipeline.edit(
            image, mask, labels=LABELS, **arguments,
            callback_on_step_end=lambda host, step, t, kwargs: steps.append(step),
        )  # fmt: skip
    assert steps == []
    later = {"sampler": ["ddim", "ode"], "resamplings": 2, "jump_length": 1}
    assert pipeline.edit(image, mask, labels=LABELS, **later).images.isfinite().all()


def test_a_student_is_refused_unless_it_takes_each_step_once(base_stage, mask):
    student = CascadePipeline.from_stages({"base": student_of(base_stage, steps=2, name="mine")})
    student.set_progress_bar_config(disable=True)
    picture = torch.zeros(3, 16, 16)
    hole = mask[:16, :16]
    with pytest.raises(ContractError, match=r"with a .* edit with its teacher mine, or with"):
        student.edit(picture, hole)
    result = student.edit(picture, hole, resamplings=1).images
    assert result[..., ~hole].eq(0).all()


def test_a_student_repaints_a_whole_picture(base_stage):
    student = CascadePipeline.from_stages({"base": student_of(base_stage, steps=2)})
    student.set_progress_bar_config(disable=True)
    assert student.edit(torch.zeros(3, 16, 16), strength=0.5).images.shape == (1, 3, 16, 16)
    with pytest.raises(
        ContractError, match="resamplings has no effect, because the whole image is redrawn"
    ):
        student.edit(torch.zeros(3, 16, 16), strength=0.5, resamplings=1)


def test_a_call_of_the_pipeline_names_edit(pipeline, image, mask):
    for name in ("mask_image", "mask", "strength"):
        with pytest.raises(ContractError, match="use edit"):
            pipeline(image=image, **{name: mask})
