"""Pipelines with a `UNet2DModel` against diffusers itself."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

from cascade import import_stage, load_stage
from cascade.conditioning.signals import Signals
from cascade.errors import WeightsError

T = torch.tensor([0, 517, 999])
X = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
GOOGLE = {  # the options of google/ddpm-*, on a small network
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}


def write(folder, scheduler=None, **options):
    torch.manual_seed(0)
    unet = UNet2DModel(**{**GOOGLE, **options})
    DDPMPipeline(unet, scheduler or DDPMScheduler()).save_pretrained(folder)
    return unet.double().eval()


def output(stage, labels=None):
    vectors = {} if labels is None else {"labels": labels[:, None]}
    with torch.no_grad():
        return stage.double().predict(X.double(), T, Signals(vectors=vectors))


def check(stage, unet, labels=None):
    with torch.no_grad():
        expected = unet(X.double(), T, labels).sample
    torch.testing.assert_close(output(stage, labels), expected, rtol=1e-5, atol=1e-5)


def test_the_stage_predicts_what_diffusers_predicts(tmp_path):
    unet = write(tmp_path)
    stage = import_stage(tmp_path)
    check(stage, unet)
    assert stage.space.size == (16, 16)
    stage.float().save_pretrained(tmp_path / "stage")
    check(load_stage(tmp_path / "stage"), unet)


@pytest.mark.parametrize(
    "options",
    [
        {"flip_sin_to_cos": True, "freq_shift": 0},
        {"norm_eps": 1e-5, "resnet_time_scale_shift": "scale_shift"},
        {"downsample_type": "resnet", "upsample_type": "resnet", "attention_head_dim": 8},
    ],
    ids=["cosines first over half", "scale and shift", "residual resampling"],
)
def test_other_options_of_diffusers(tmp_path, options):
    check_unet = write(tmp_path, **options)
    check(import_stage(tmp_path), check_unet)


def test_files_at_the_top_of_the_folder(tmp_path):
    unet = write(tmp_path / "source")
    for part, name in (("unet", "*"), ("scheduler", "*")):
        for file in (tmp_path / "source" / part).glob(name):
            file.rename(tmp_path / "source" / file.name)
    check(import_stage(tmp_path / "source"), unet)


def test_class_labels_become_a_condition(tmp_path):
    unet = write(tmp_path, num_class_embeds=4)
    stage = import_stage(tmp_path, class_names=["a", "b", "c", "d"])
    check(stage, unet, torch.tensor([3, 0, 2]))


def test_the_scheduler_states_schedule_prediction_and_threshold(tmp_path):
    cosine = DDPMScheduler(
        500, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False
    )
    write(tmp_path / "cosine", cosine)
    stage = import_stage(tmp_path / "cosine")
    process = stage.process
    assert (process.schedule.kind, process.prediction) == ("cosine", "v")
    assert process.schedule.train_steps == 500
    assert stage.sampling.threshold == "none"


def test_the_usual_schedule_is_our_linear_one(tmp_path):
    write(tmp_path)
    schedule = import_stage(tmp_path).process.schedule
    assert schedule.kind == "linear"


def test_another_schedule_keeps_its_own_table(tmp_path):
    scheduler = DDIMScheduler(200, beta_start=1e-3, beta_end=0.05, beta_schedule="scaled_linear")
    write(tmp_path, scheduler)
    stage = import_stage(tmp_path)
    table = scheduler.alphas_cumprod.double()
    torch.testing.assert_close(stage.process.schedule.alpha_bar, table, rtol=1e-5, atol=0)
    stage.save_pretrained(tmp_path / "stage")
    stage.save_pretrained(tmp_path / "stage")  # over the first one
    again = load_stage(tmp_path / "stage")
    assert again.process.schedule.alpha_bar.equal(stage.process.schedule.alpha_bar)


def test_fp16_variants_are_read_and_pickled_weights_refused(tmp_path):
    unet = write(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    check(import_stage(tmp_path), unet)
    file.with_name("diffusion_pytorch_model.fp16.safetensors").rename(file.with_suffix(".bin"))
    with pytest.raises(WeightsError, match="not read, because they can run code"):
        import_stage(tmp_path)


def test_what_is_no_pipeline_of_pixels_is_refused(tmp_path):
    write(tmp_path, class_embed_type="timestep")
    with pytest.raises(WeightsError, match="class_embed_type 'timestep'"):
        import_stage(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "vqvae": ["diffusers", "VQ"]}))
    with pytest.raises(WeightsError, match="latents of its vqvae"):
        import_stage(tmp_path)
    write(tmp_path / "more", in_channels=6)
    with pytest.raises(WeightsError, match="6 in and 3 out"):
        import_stage(tmp_path / "more")
