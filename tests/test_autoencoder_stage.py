from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny_autoencoders import IdentityAutoencoder, linear_stage
from torch import Tensor

from cascade.autoencoder_stage import AutoencoderStage
from cascade.chain import StageChain
from cascade.conditioning.batch import Batch
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import CascadeError, ContractError, WeightsError
from cascade.networks.autoencoder import Posterior
from cascade.pipeline import CascadePipeline
from cascade.sampling.overrides import Overrides
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.walk import Hooks, StartFrom
from cascade.space import Space
from cascade.stage import Run
from cascade.stage_kinds import load_stage
from cascade.sweeping.axes import read_axes
from cascade.sweeping.default_axes import default_axes
from cascade.training.objectives.denoising import Denoising

KL = {"channels": [8, 8], "norm_groups": 4}
TINY = {"width": 8, "levels": 1}


@pytest.fixture(scope="module")
def stage() -> AutoencoderStage:
    """A variational autoencoder of 16 px images and 8 px latents."""
    torch.manual_seed(0)
    return AutoencoderStage.build(Space(size_px=16), network_options=KL).scaled(0.1, 0.5).eval()


def pictures(count: int = 4, size_px: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, size_px, size_px, generator=generator) * 2 - 1


def base_of(space: Space, **options) -> DiffusionStage:
    torch.manual_seed(0)
    return DiffusionStage.build(
        Contract(space),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1},
        embedding_dim=16,
        **options,
    ).eval()


# ---- encoding and decoding ----------------------------------------------------------------------


def test_the_divergence_is_that_of_normal_distributions():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    ours = Posterior(mean, log_variance).kl()
    normal = torch.distributions.Normal(mean.double(), (0.5 * log_variance.double()).exp())
    theirs = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
    assert Posterior(torch.zeros(1), torch.zeros(1)).kl() == 0


def test_latents_are_shifted_and_scaled_and_decoding_undoes_it(stage):
    images = pictures()
    raw = stage.posterior(images).mean
    latents = stage.encode(images)
    torch.testing.assert_close(latents, (raw - 0.1) / 0.5)
    with torch.no_grad():
        direct = stage.network.decode(raw).clamp(-1, 1)
    torch.testing.assert_close(stage.decode(latents), direct, rtol=0, atol=1e-5)


def test_drawn_latents_follow_from_each_seed_alone(stage):
    images = pictures(1).expand(3, -1, -1, -1)
    together = stage.encode(images, seeds=[5, 6, 5])
    torch.testing.assert_close(together[:1], stage.encode(images[:1], seeds=[5]))
    assert torch.equal(together[0], together[2])
    assert not torch.allclose(together[0], together[1])
    draws = stage.encode(pictures(1).expand(400, -1, -1, -1), seeds=range(400))
    posterior = stage.posterior(pictures(1))
    std = (0.5 * posterior.log_variance).exp() * stage.latents.scale
    assert abs(draws.std(dim=0) / std - 1).mean() < 0.05
    assert (draws.mean(dim=0) - stage.encode(pictures(1))).abs().mean() < 0.2


def test_sides_are_multiples_of_the_factor():
    options = {"channels": [8, 8, 8, 8]}
    with pytest.raises(ContractError, match="multiples of 8 px, got 20x20 px"):
        AutoencoderStage.build(Space(size_px=20), network_options=options)
    stage = AutoencoderStage.build(Space(size_px=16), network_options=KL)
    with pytest.raises(ContractError, match="multiples of 2 px, got 15x16 px"):
        stage.encode(pictures()[..., :15])


def test_numbers_that_cannot_be_scaled_are_refused(stage):
    with pytest.raises(ContractError, match="must differ"):
        stage.scaled(0.0, 0.0)


def test_channels_that_cannot_be_grouped_are_refused():
    with pytest.raises(ContractError, match="multiples of norm_groups 4, got 6"):
        AutoencoderStage.build(Space(size_px=16), network_options={**KL, "channels": [8, 6]})


# ---- in a chain ---------------------------------------------------------------------------------


def test_an_identity_autoencoder_behind_a_stage_is_the_pixel_stage_bit_for_bit():
    settings = SamplingSettings(steps=3, threshold="none")
    pixels = base_of(Space(size_px=8), sampling=settings)
    decoder = AutoencoderStage.of_network(IdentityAutoencoder(), Space(size_px=8)).scaled(0.0, 1.0)
    latents = base_of(decoder.latent_space, sampling=settings)
    latents.load_state_dict(pixels.state_dict())
    chain = CascadePipeline.from_stages({"stage": latents, "decoder": decoder})
    chain.set_progress_bar_config(disable=True)
    alone = CascadePipeline.from_stages({"stage": pixels})
    alone.set_progress_bar_config(disable=True)
    ours = chain(num_images=3, seed=4, output_type="pt").images
    theirs = alone(num_images=3, seed=4, output_type="pt").images
    assert theirs.abs().max() == 1, "some pixels are clipped"
    assert torch.equal(ours, theirs)
    batch = Batch(images=pictures(4, 8), seeds=(1, 2, 3, 4))
    encoded = Batch(images=decoder.encode(batch.images), seeds=batch.seeds)
    assert torch.equal(Denoising().loss(latents, encoded), Denoising().loss(pixels, batch))


def test_a_chain_decodes_the_latents_of_the_stage_before(stage):
    base = base_of(stage.latent_space, sampling=SamplingSettings(steps=2, threshold="none"))
    pipeline = CascadePipeline.from_stages({"base": base, "decoder": stage})
    pipeline.set_progress_bar_config(disable=True)
    result = pipeline(
        num_images=2, seed=1, output_type="pt", keep_intermediates=True, precision="fp32"
    )
    latents = result.intermediates["base"]
    assert latents.shape == (2, 4, 8, 8)
    assert torch.equal(result.images, stage.decode(latents))
    again = pipeline(num_images=1, seed=2, output_type="pt", precision="fp32").images
    torch.testing.assert_close(again, result.images[1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_scale": 3.0}, "'base' gives encoder_scale 3.0, 'decoder' takes 2.0"),
        ({"encoder_shift": 0.0}, "'base' gives encoder_shift 0.0, 'decoder' takes 0.1"),
        ({"encoder": "other"}, "'base' gives encoder other, 'decoder' takes "),
        ({"channels": 3}, "'base' gives channels 3, 'decoder' takes 4"),
        ({"size_px": 16}, "'base' gives size_px 16x16, 'decoder' takes 8x8"),
        ({"resize_kernel": "area"}, "'base' gives resize_kernel area, 'decoder' takes bicubic"),
    ],
)
def test_a_chain_refuses_latents_that_the_decoder_does_not_know(stage, change, message):
    values = {**stage.latent_space.to_dict(), **change}
    base = base_of(Space(**values))
    with pytest.raises(ContractError, match=message):
        StageChain({"base": base, "decoder": stage})


def test_a_chain_refuses_pixels_and_a_decoder_before_its_latents(stage):
    with pytest.raises(ContractError, match="'base' gives"):
        StageChain({"base": base_of(Space(size_px=8, channels=4)), "decoder": stage})
    with pytest.raises(ContractError, match="'base' is a base stage and takes no image, but foll"):
        StageChain({"decoder": stage, "base": base_of(stage.latent_space)})


def test_latents_of_another_width_are_refused(stage):
    with pytest.raises(ContractError, match=r"must be \(B, 4, H, W\), got \(2, 3, 8, 8\)"):
        stage.run([0, 1], previous=torch.zeros(2, 3, 8, 8))
    with pytest.raises(ContractError, match=r"must be \(B, 4, H, W\), got \(2, 3, 8, 8\)"):
        stage.decode(torch.zeros(2, 3, 8, 8))


def test_latents_that_a_user_has_are_decoded(stage):
    latents = stage.encode(pictures(2))
    assert torch.equal(stage.run([0, 1], Inputs({"latents": latents})), stage.decode(latents))


@pytest.fixture(scope="module")
def latent_pipeline(stage) -> CascadePipeline:
    """A stage of latents and their decoder."""
    base = base_of(stage.latent_space, sampling=SamplingSettings(steps=2, threshold="none"))
    pipeline = CascadePipeline.from_stages({"base": base, "decoder": stage})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_a_chain_decodes_latents_that_a_user_has(stage, latent_pipeline):
    latents = stage.encode(pictures(3)) * 40  # they have no bounds
    expected = stage.decode(latents)
    for start in ({"start_at": "decoder"}, {}):
        run = {"inputs": {"latents": latents}, "output_type": "pt", **start}
        assert torch.equal(latent_pipeline(**run, precision="fp32").images, expected)
    alone = CascadePipeline.from_stages({"vae": stage})
    alone.set_progress_bar_config(disable=True)
    assert torch.equal(alone(**run, precision="fp32").images, expected)


def test_decoded_latents_go_on_through_the_chain(stage, latent_pipeline):
    upsampler = DiffusionStage.build(
        Contract(Space(size_px=32), (LowResolution(size_px=16),)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1},
        sampling=SamplingSettings(steps=2),
    ).eval()
    stages = {**dict(latent_pipeline.stages.items()), "up": upsampler}
    pipeline = CascadePipeline.from_stages(stages)
    pipeline.set_progress_bar_config(disable=True)
    latents = stage.encode(pictures(1))
    options = {"seed": 3, "output_type": "pt", "precision": "fp32"}
    result = pipeline(inputs={"latents": latents}, **options)
    decoded = stage.decode(latents)
    assert torch.equal(result.images, pipeline(image=decoded, **options).images)


@pytest.mark.parametrize(
    ("latents", "got"),
    [
        (torch.zeros(1, 8, 8, 8), r"\(1, 8, 8, 8\) of torch.float32"),
        (torch.zeros(1, 4, 9, 8), r"\(1, 4, 9, 8\) of torch.float32"),
        (torch.zeros(4, 8, 8), r"\(4, 8, 8\) of torch.float32"),
        (torch.zeros(0, 4, 8, 8), r"\(0, 4, 8, 8\) of torch.float32"),
        (torch.zeros(1, 4, 8, 8, dtype=torch.int64), r"\(1, 4, 8, 8\) of torch.int64"),
        ("latents.pt", "'latents.pt'"),
    ],
)
def test_latents_of_a_user_have_the_width_and_size_of_the_decoder(latent_pipeline, latents, got):
    message = rf"^latents must be a tensor \(B, 4, 8, 8\) of floats, got {got}\.$"
    with pytest.raises(ContractError, match=message):
        latent_pipeline(start_at="decoder", inputs={"latents": latents})


LATENTS, IMAGE = torch.zeros(2, 4, 8, 8), torch.zeros(1, 3, 16, 16)
NO_IMAGE = (
    "stage 'decoder' takes latents of 4 channels, 8 px, and no image; give latents as "
    'inputs={"latents": tensor}, or leave image out.'
)
TOO_LARGE = (
    "latents must be finite numbers; their standard deviation is 1, and none may be beyond 10,000. "
    "Got infinite ones, NaN, or larger ones."
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": IMAGE}, NO_IMAGE),
        ({"image": LATENTS * 50, "start_at": "decoder"}, NO_IMAGE),
        (
            {"start_at": "decoder"},
            "start_at 'decoder' needs latents, inputs={\"latents\": tensor}, to start from.",
        ),
        (
            {"start_at": "base", "inputs": {"latents": LATENTS}},
            "start_at 'base' does not fit 'latents', with which a run starts at 'decoder'; leave "
            "start_at out.",
        ),
        ({"inputs": {"latents": LATENTS * torch.nan}}, TOO_LARGE),
        ({"inputs": {"latents": LATENTS.double() + 1e300}}, TOO_LARGE),
        (
            {"inputs": {"latents": LATENTS.to(torch.float8_e4m3fn)}},
            "latents must be a tensor (B, 4, 8, 8) of floats, got (2, 4, 8, 8) of "
            "torch.float8_e4m3fn.",
        ),
        (
            {"inputs": {"latents": LATENTS}, "num_images": 3},
            "got 2 entries of latents for 3 seeds.",
        ),
        (
            {"inputs": {"latents": LATENTS}, "like": IMAGE},
            "like and latents exclude each other; give one of them.",
        ),
        ({"image": IMAGE, "start_at": "base"}, "stage 'base' is a base stage and takes no image."),
        (
            {"inputs": {"latents": LATENTS}, "stop_at": "base"},
            "stop_at 'base' comes before 'decoder', the stage at which the run starts.",
        ),
    ],
)
def test_other_starts_of_a_chain_with_a_decoder_are_refused(latent_pipeline, arguments, message):
    with pytest.raises(ContractError) as error:
        latent_pipeline(**{"output_type": "pt", **arguments})
    assert str(error.value) == message


def test_chains_without_a_decoder_say_so(stage):
    alone = CascadePipeline.from_stages({"base": base_of(stage.latent_space)})
    with pytest.raises(ContractError, match="reads 'latents'; only the decoder of an autoencoder"):
        alone(inputs={"latents": LATENTS}, output_type="pt")
    with pytest.raises(ContractError, match=r"^no stage of this pipeline takes an image; leave it"):
        alone(image=LATENTS, output_type="pt")


def test_settings_for_all_stages_pass_over_a_decoder_and_its_own_are_refused(stage):
    base = base_of(stage.latent_space, sampling=SamplingSettings(steps=2, threshold="none"))
    chain = StageChain({"base": base, "decoder": stage})
    assert chain.with_sampling(Overrides({"all": {"steps": 7}}))["base"].sampling.steps == 7
    with pytest.raises(ContractError, match="steps: an autoencoder stage has no steps"):
        chain.with_sampling(Overrides({"decoder": {"steps": 7}}))
    with pytest.raises(ContractError, match="guidance: no stage of this run samples in steps"):
        StageChain({"vae": stage}).with_sampling(Overrides({"all": {"guidance": 2.0}}))


def test_a_decoder_is_neither_swept_nor_an_upsampler(stage):
    base = base_of(stage.latent_space, sampling=SamplingSettings(steps=2, threshold="none"))
    pipeline = CascadePipeline.from_stages({"base": base, "decoder": stage})
    assert {axis.stages for axis in default_axes(pipeline)} == {("base",)}
    (axis,) = read_axes(["steps=2,3"], pipeline)
    assert axis.stages == ("base",)
    with pytest.raises(ContractError, match="has no upsampler"):
        pipeline.upscale(pictures(1, 8))


def test_a_pipeline_that_ends_in_latents_makes_tensors_only(stage):
    pipeline = CascadePipeline.from_stages({"base": base_of(stage.latent_space)})
    pipeline.set_progress_bar_config(disable=True)
    with pytest.raises(ContractError, match="makes latents, which are not images"):
        pipeline(num_images=1)
    assert pipeline(num_images=1, steps=1, output_type="pt").images.shape == (1, 4, 8, 8)


# ---- alone --------------------------------------------------------------------------------------


def test_alone_it_decodes_draws_from_the_prior():
    stage = linear_stage(3, 2).scaled(5.0, 7.0)  # which the prior does not know
    network = stage.network
    with torch.no_grad():
        network.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    vectors = stage.run(range(4000)).flatten(1)
    covariance = network.decoder @ network.decoder.T
    assert (vectors.mean(dim=0) - network.bias).abs().max() < 4 * (
        covariance.diag() / 4000
    ).sqrt().max()
    torch.testing.assert_close(vectors.T.cov(), covariance.detach(), rtol=0.1, atol=0.02)
    torch.testing.assert_close(stage.run([17]).flatten(1), vectors[17:18])


def test_alone_without_distributions_there_is_nothing_to_draw_from():
    stage = AutoencoderStage.build(
        Space(size_px=16), network="autoencoder_tiny", network_options=TINY
    )
    with pytest.raises(ContractError, match="has no distribution of latents"):
        stage.run([0])


def test_starting_from_images_restores_them(stage):
    images = pictures(2)
    run = Run(hooks=Hooks(start_from=StartFrom(images)), stream="stage vae")
    expected = stage.decode(stage.encode(images, seeds=[3, 4], stream="stage vae"))
    assert torch.equal(stage.run([3, 4], run=run), expected)
    other = stage.run([3, 4], run=replace(run, stream="stage other"))
    assert not torch.equal(other, expected)


def test_a_callback_may_replace_images_by_others_of_their_shape(stage):
    def returning(value):
        return Run(hooks=Hooks(callback=lambda step, t, tensors: {"x_t": value}))

    zeros = torch.zeros(1, 3, 16, 16)
    assert torch.equal(stage.run([0], run=returning(zeros)), zeros)
    for value in (zeros[0], "black"):
        with pytest.raises(ContractError, match=r"x_t of a callback must be a tensor \(1, 3, 16"):
            stage.run([0], run=returning(value))


def test_latents_are_decoded_and_then_upscaled_in_one_chain(stage):
    """The decoder stands between its latents and an upsampler that takes its pixels."""
    settings = SamplingSettings(steps=2, threshold="none")
    base = base_of(stage.latent_space, sampling=settings)
    upsampler = DiffusionStage.build(
        Contract(Space(size_px=32), (LowResolution(size_px=16),)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1},
        sampling=SamplingSettings(steps=2),
    ).eval()
    pipeline = CascadePipeline.from_stages({"base": base, "decoder": stage, "up": upsampler})
    pipeline.set_progress_bar_config(disable=True)
    result = pipeline(seed=3, output_type="pt", keep_intermediates=True, precision="fp32")
    latents = base.run([3], run=Run(stream="stage base"))
    decoded = stage.decode(latents)
    assert torch.equal(result.intermediates["decoder"], decoded)
    expected = upsampler.run([3], previous=decoded, run=Run(stream="stage up"))
    assert torch.equal(result.images, expected)
    with pytest.raises(ContractError, match=r"'base' gives .*, 'up' takes"):
        StageChain({"base": base, "up": upsampler})


# ---- saving -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["autoencoder_kl", "autoencoder_tiny"])
def test_a_saved_stage_loads_and_diffusers_reads_it(kind, tmp_path):
    import diffusers

    options = KL if kind == "autoencoder_kl" else TINY
    torch.manual_seed(1)
    stage = AutoencoderStage.build(Space(size_px=16), network=kind, network_options=options)
    stage = stage.scaled(0.25, 2.0).eval()
    stage.save_pretrained(tmp_path)
    stage.save_pretrained(tmp_path)  # over the first one
    loaded = load_stage(tmp_path)
    assert isinstance(loaded, AutoencoderStage)
    assert loaded.contract == stage.contract
    assert torch.equal(loaded.encode(pictures()), stage.encode(pictures()))
    model = (
        getattr(diffusers, type(stage.network).saved_as).from_pretrained(tmp_path / "vae").eval()
    )
    assert (model.config.scaling_factor, model.config.shift_factor) == (0.5, 0.25)
    again = AutoencoderStage.from_diffusers(tmp_path / "vae", Space(size_px=16))
    assert again.contract == stage.contract
    with torch.no_grad():
        decoded = model.decode(torch.ones(1, 4, 8, 8) / 0.5 + 0.25).sample
    assert torch.equal(decoded.clamp(-1, 1), stage.decode(torch.ones(1, 4, 8, 8)))


def test_a_vae_with_the_old_names_of_attention_loads(tmp_path):
    from safetensors.torch import load_file, save_file

    torch.manual_seed(1)
    options = {**KL, "attention": True}
    stage = AutoencoderStage.build(Space(size_px=16), network_options=options).scaled(0, 1).eval()
    stage.save_pretrained(tmp_path)
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(file)
    for name in list(weights):
        for new, word in old.items():
            if f".attentions.0.{new}." in name:
                weights[name.replace(new, word)] = weights.pop(name)
                break
    save_file(weights, file, metadata={"format": "pt"})
    again = AutoencoderStage.from_diffusers(tmp_path / "vae", Space(size_px=16))
    assert torch.equal(again.encode(pictures()), stage.encode(pictures()))


def test_only_the_encoder_decides_which_latents_fit(stage):
    torch.manual_seed(2)
    finer = AutoencoderStage.build(Space(size_px=16), network_options=KL)
    finer.network.model.encoder = stage.network.model.encoder
    finer.network.model.quant_conv = stage.network.model.quant_conv
    assert finer.scaled(0.1, 0.5).latent_space == stage.latent_space


def test_damaged_folders_are_named(stage, tmp_path):
    stage.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "stage.json").read_text())
    config["network"]["kind"] = "autoencoder_lk"
    (tmp_path / "stage.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="unknown autoencoder 'autoencoder_lk'"):
        load_stage(tmp_path)
    config["network"]["kind"] = "autoencoder_kl"
    config["contract"]["conditions"]["latents"]["channels"] = 8
    (tmp_path / "stage.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="latents of channels 4, the contract says 8"):
        load_stage(tmp_path)
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no \.safetensors file"):
        AutoencoderStage.from_diffusers(tmp_path / "vae", Space(size_px=16))
    with pytest.raises(CascadeError, match="cannot be saved"):
        linear_stage(3, 2).save_pretrained(tmp_path / "linear")


def test_unknown_options_of_the_network_are_refused_with_the_nearest():
    for network, options, nearest in (
        ("autoencoder_kl", {"chanels": (8,)}, "'channels'"),
        ("autoencoder_tiny", {"level": 2}, "'levels'"),
    ):
        with pytest.raises(ContractError, match=f"unknown network option .* mean {nearest}"):
            AutoencoderStage.build(Space(size_px=16), network=network, network_options=options)
