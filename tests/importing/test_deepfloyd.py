"""U-Nets of DeepFloyd IF, small and with random weights, against diffusers' own pipelines."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel

from cascade import CascadePipeline, Inputs, import_stage, load_stage
from cascade.conditioning.assembling import against_signals, request_signals
from cascade.conditioning.inputs import Request
from cascade.diffusion.noise import SeededNoise
from cascade.errors import CascadeError, ContractError
from cascade.networks.imported_networks import level_of_step
from cascade.saving.stage_folder import scheduler_config

T = torch.tensor([3, 999])
WIDTH = 16  # of the tiny T5's tokens
SHARED = {  # as `scripts/convert_if.py` of diffusers writes them
    "act_fn": "gelu",
    "attention_head_dim": 8,
    "block_out_channels": (32, 64),
    "cross_attention_dim": 32,
    "cross_attention_norm": "group_norm",
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 2,
    "encoder_hid_dim": WIDTH,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "resnet_time_scale_shift": "scale_shift",
    "out_channels": 6,
}
STAGE_I = {**SHARED, "sample_size": 8, "in_channels": 3, "layers_per_block": 1}
STAGE_II = {
    **SHARED,
    "sample_size": 16,
    "in_channels": 6,
    "layers_per_block": (1, 2),
    "class_embed_type": "timestep",
    "time_embedding_dim": 64,
    "time_embedding_act_fn": "gelu",
    "resnet_skip_time_act": True,
    "resnet_out_scale_factor": 1 / 0.7071,
    "mid_block_scale_factor": 1 / 0.7071,
    "only_cross_attention": True,
}


def write(folder, config, **scheduler):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**config)
    unet.save_pretrained(folder / "unet")
    DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True,
        dynamic_thresholding_ratio=0.95, **scheduler,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    return unet.eval()


@pytest.fixture(scope="module")
def t5(text_encoders):
    return str(text_encoders["t5"])


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deepfloyd")
    unets = [
        write(folder / "I", STAGE_I, sample_max_value=1.5),
        write(folder / "II", STAGE_II, sample_max_value=1.0),
    ]
    return folder, *unets


def padded(folder, texts):
    """The tokens of texts as diffusers' pipeline computes them: padded, and all attended to."""
    from transformers import AutoTokenizer, T5EncoderModel

    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    model = T5EncoderModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(tokens.input_ids, attention_mask=tokens.attention_mask)[0].half().float()


def request(stage, **inputs):
    return Request(
        inputs=Inputs(inputs), previous=None, space=stage.space, size_px=stage.space.size,
        augmentation_level=stage.sampling.augmentation_level, noise=SeededNoise([0, 1]),
    )  # fmt: skip


def test_stage_one_predicts_what_diffusers_predicts(sources, t5):
    folder, unet, _ = sources
    stage = import_stage(folder / "I", text_encoder=t5)
    texts, x = ["a red dot", "cat"], torch.randn(2, 3, 8, 8)
    asked = request(stage, prompt=texts)
    signals = request_signals(stage.conditions, asked)
    against = against_signals(stage.conditions, asked, signals)
    unet, exact = copy.deepcopy(unet).double(), copy.deepcopy(stage).double()
    with torch.no_grad():
        for own, prompts in ((signals, texts), (against, ["", ""])):
            tokens = padded(t5, prompts).double()
            expected = unet(x.double(), T, encoder_hidden_states=tokens).sample
            predicted = exact.predict(x.double(), T, own)
            torch.testing.assert_close(predicted, expected, rtol=1e-5, atol=1e-5)
    assert stage.process.learned_variance
    assert stage.process.schedule.kind == "cosine"
    assert stage.sampling.threshold == "dynamic"
    assert stage.sampling.percentile == 0.95
    theirs = DDPMScheduler.from_pretrained(folder / "I", subfolder="scheduler")
    far = 3 * torch.randn(2, 3, 8, 8)
    thresholded = stage.sampling.thresholding.apply(far)
    torch.testing.assert_close(thresholded, theirs._threshold_sample(far))
    assert scheduler_config(stage.process, stage.sampling)["sample_max_value"] == 1.5
    capitals = request_signals(stage.conditions, request(stage, prompt=["A red DOT", " Cat "]))
    assert capitals.tokens["text"].tokens.equal(signals.tokens["text"].tokens)


def test_stage_two_takes_the_upscaled_image_with_noise_and_its_step(sources, t5):
    folder, _, unet = sources
    stage = import_stage(folder / "II", text_encoder=t5)
    texts, x = ["house", "dog"], torch.randn(2, 3, 16, 16)
    low_res = torch.rand(2, 3, 4, 4) * 2 - 1
    signals = request_signals(stage.conditions, request(stage, prompt=texts, image=low_res))
    upscaled = F.interpolate(low_res, (16, 16), mode="bilinear", align_corners=True)
    noise = SeededNoise([0, 1]).fork("low_resolution").normal(3, 16, 16)
    step = torch.tensor([250, 250])
    noised = DDPMScheduler(beta_schedule="squaredcos_cap_v2").add_noise(upscaled, noise, step)
    torch.testing.assert_close(
        signals.channels["low_resolution"].image, noised, rtol=1e-5, atol=1e-5
    )
    unet, stage = copy.deepcopy(unet).double(), copy.deepcopy(stage).double()
    with torch.no_grad():
        expected = unet(
            torch.cat([x, signals.channels["low_resolution"].image], dim=1).double(),
            T,
            encoder_hidden_states=padded(t5, texts).double(),
            class_labels=step,
        ).sample
        predicted = stage.predict(x.double(), T, signals)
    torch.testing.assert_close(predicted, expected, rtol=1e-5, atol=1e-5)
    assert stage.sampling.threshold == "static"


def test_every_noise_step_is_found_again_from_its_level(sources, t5):
    network = import_stage(sources[0] / "II", text_encoder=t5).network
    levels = torch.tensor([level_of_step(step) for step in range(1000)])
    assert network._noise_steps(levels).equal(torch.arange(1000))


def test_both_stages_join_are_saved_and_sample(sources, t5, tmp_path):
    folder = sources[0]
    stages = {
        "base": import_stage(folder / "I", text_encoder=t5),
        "upsampler": import_stage(folder / "II", text_encoder=t5, low_size_px=8),
    }
    CascadePipeline.from_stages(stages).save_pretrained(tmp_path / "pipeline")
    CascadePipeline.from_stages(stages).save_pretrained(tmp_path / "pipeline")  # over the first one
    pipeline = CascadePipeline.from_pretrained(tmp_path / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a red dot", seed=0, steps=2, output_type="pt").images
    assert image.shape == (1, 3, 16, 16)
    base = load_stage(tmp_path / "pipeline" / "stages" / "base")
    assert base.contract == stages["base"].contract


def test_the_pipeline_s_own_text_encoder_is_taken(sources, t5, tmp_path):
    folder = shutil.copytree(sources[0] / "I", tmp_path / "own")
    shutil.copytree(t5, folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    for path in folder.glob("text_encoder/*token*"):
        path.rename(folder / "tokenizer" / path.name)
    own, other = import_stage(folder), import_stage(sources[0] / "I", text_encoder=t5)
    asked = request(own, prompt=["a red dot", "cat"])
    first, second = (request_signals(each.conditions, asked) for each in (own, other))
    assert first.tokens["text"].tokens.equal(second.tokens["text"].tokens)


def test_what_does_not_fit_is_refused(sources, t5):
    with pytest.raises(ContractError, match="heads has no effect"):
        import_stage(sources[0] / "I", text_encoder=t5, heads=2)
    with pytest.raises(CascadeError, match="base model"):
        import_stage(sources[0] / "I", text_encoder=t5, low_size_px=4)
    with pytest.raises(ContractError, match="no text encoder"):
        import_stage(sources[0] / "I", text_encoder="none at all")
