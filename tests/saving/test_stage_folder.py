import json

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn

from cascade.conditioning.degradation import Degradation
from cascade.conditioning.faults.compression import Compression
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import OutputError, WeightsError
from cascade.networks.stage_network import MODULES
from cascade.sampling.samplers.ddim import DDIM
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.walk import Hooks
from cascade.space import Space
from cascade.stage import Run
from cascade.stage_kinds import load_stage


@pytest.mark.parametrize("name", ["base_stage", "upsampler", "colouriser"])
def test_round_trip_is_exact(name, low_res, tmp_path, request, labels):
    stage = request.getfixturevalue(name)
    stage.save_pretrained(tmp_path / "stage")
    loaded = DiffusionStage.from_pretrained(tmp_path / "stage")
    assert loaded.config() == stage.config()
    assert not loaded.training
    assert load_stage(tmp_path / "stage").config() == stage.config()
    image = low_res if stage.contract.needs_image else None
    inputs = Inputs({"labels": labels, "image": image})
    assert loaded.run(range(5), inputs).equal(stage.run(range(5), inputs))


def test_a_stage_with_every_option_set_otherwise_round_trips(tmp_path):
    schedule = NoiseSchedule("linear", train_steps=50, shift=0.5, zero_terminal_snr=True)
    process = NoiseProcess(
        schedule,
        prediction="x0",
        weighting="velocity",
        min_snr_gamma=3.0,
        timesteps="logit_normal",
        logit_mean=-0.1,
        logit_std=0.3,
        learned_variance=True,
    )
    condition = LowResolution(
        size_px=(4, 8),
        quantised=False,
        augmentation_range=(0.1, 0.2),
        drop=0.25,
        blur_probability=0.5,
        degradation=Degradation(
            probability=0.3, resize=(0.5, 0.9), compression=Compression(probability=0.0)
        ),
    )
    space = Space(size_px=(16, 32), range=(0, 10_000), unit="HU", resize_kernel="area")
    options = {"width": 16, "depth": 1, "fine_width": 8, "fine_depth": 1, "head_channels": 4}
    stage = DiffusionStage.build(
        Contract(space, (condition,)),
        process,
        network="transformer",
        network_options=options,
        embedding_dim=8,
        sampling=SamplingSettings(
            sampler="ddpm",
            steps=9,
            guidance=1.5,
            guidance_interval=(0.5, 2.0),
            augmentation_level=0.15,
            threshold="dynamic",
            percentile=0.9,
            temperature=0.5,
            options={"variance": "large"},
        ),
    )
    stage.save_pretrained(tmp_path / "stage")
    loaded = DiffusionStage.from_pretrained(tmp_path / "stage")
    assert loaded.config() == stage.config()
    assert loaded.contract == stage.contract
    assert loaded.sampling == stage.sampling
    assert loaded.process.schedule.alpha_bar.equal(schedule.alpha_bar)


def test_network_loads_with_plain_diffusers(base_stage, tmp_path, labels):
    base_stage.save_pretrained(tmp_path / "stage")
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "stage", subfolder="unet")
    x_t = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    inputs = {"sample": x_t, "timestep": torch.tensor([5, 80]), "encoder_hidden_states": None}
    vector = base_stage.network.embedding({"labels": labels[:2]})
    with torch.no_grad():
        theirs = unet(**inputs, class_labels=vector).sample
        ours = base_stage.network.backbone(**inputs, class_labels=vector).sample
    assert theirs.equal(ours)


@pytest.mark.parametrize("threshold", ["static", "dynamic", "none"])
def test_saved_scheduler_samples_the_same_image_in_plain_diffusers(
    base_stage, tmp_path, threshold, labels
):
    settings = base_stage.sampling.changed(threshold=threshold, percentile=0.9)
    base_stage = base_stage.with_sampling(settings)
    base_stage.save_pretrained(tmp_path / "stage")
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "stage", subfolder="scheduler")
    scheduler.set_timesteps(4)
    kept = []
    hooks = Hooks(callback=lambda step, t, tensors: kept.append(tensors["x0"].clone()))
    base_stage.run([1], Inputs({"labels": labels[:1]}), run=Run(hooks=hooks))
    x_t = SeededNoise([1], "sample").normal(3, 16, 16)
    vector = base_stage.network.embedding({"labels": labels[:1]})
    with torch.no_grad():
        for step, t in enumerate(scheduler.timesteps):
            output = base_stage.network.backbone(x_t, t, None, class_labels=vector).sample
            moved = scheduler.step(output, t, x_t, use_clipped_model_output=True)
            torch.testing.assert_close(kept[step], moved.pred_original_sample, rtol=1e-3, atol=1e-3)
            x_t = moved.prev_sample


def test_saving_in_bfloat16_rounds_the_file_and_not_the_stage(base_stage, tmp_path):
    before = [parameter.clone() for parameter in base_stage.parameters()]
    base_stage.save_pretrained(tmp_path / "stage", dtype=torch.bfloat16)
    loaded = DiffusionStage.from_pretrained(tmp_path / "stage")
    for ours, copied, theirs in zip(
        base_stage.parameters(), before, loaded.parameters(), strict=True
    ):
        assert ours.equal(copied)
        assert theirs.equal(ours.bfloat16().float())


def test_a_save_that_fails_leaves_the_old_stage(base_stage, tmp_path, monkeypatch):
    base_stage.save_pretrained(tmp_path / "stage")
    monkeypatch.setattr(base_stage, "config", lambda: {"not": object()})
    with pytest.raises(TypeError, match="not JSON serializable"):
        base_stage.save_pretrained(tmp_path / "stage")
    assert [path.name for path in tmp_path.iterdir()] == ["stage"]
    DiffusionStage.from_pretrained(tmp_path / "stage")


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-50])


def make_pickled(path):
    path.rename(path.with_suffix(".bin"))


def change_shape(path):
    tensors = load_file(path)
    tensors["conv_in.weight"] = tensors["conv_in.weight"][:4].clone()
    save_file(tensors, path)


def change_network(path):
    config = json.loads(path.read_text())
    config["network"]["kind"] = "unett"
    path.write_text(json.dumps(config))


def change(key, value):
    """A function that replaces a value of a JSON file."""
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))


def change_patch_size(path):
    config = json.loads(path.read_text())
    config["network"]["patch_size"] = 1
    path.write_text(json.dumps(config))


def remove_folder(path):
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        (WEIGHTS, lambda path: path.unlink(), "no .safetensors file"),
        (WEIGHTS, truncate, "damaged or truncated"),
        (WEIGHTS, make_pickled, "pickled weights"),
        (WEIGHTS, change_shape, r"'conv_in.weight' has shape \(4, 24, 3, 3\), .*\(8, 24, 3, 3\)"),
        ("stage.json", lambda path: path.unlink(), "stage.json is missing"),
        ("stage.json", truncate, "stage.json is not valid JSON"),
        ("stage.json", lambda path: path.write_text("{}"), "a None stage, not a diffusion stage"),
        ("stage.json", change("process", 3), "does not describe a stage"),
        ("stage.json", change("contract", {"space": {}, "conditions": {}}), "does not describe a"),
        ("stage.json", change("sampling", {"stps": 3}), "unknown sampling setting 'stps'"),
        ("stage.json", change("kind", "autoencoder"), "an? autoencoder stage, not a diffusion"),
        ("stage.json", change_network, "unknown network 'unett': did you mean 'unet'"),
        ("stage.json", change_patch_size, "6 channels in and 3 out, the network has 24 and 12"),
        ("unet/config.json", truncate, "config.json is not valid JSON"),
        ("embedding", remove_folder, "config.json is missing"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(upsampler, tmp_path, file, damage, message):
    upsampler.save_pretrained(tmp_path / "stage")
    damage(tmp_path / "stage" / file)
    with pytest.raises(WeightsError, match=message) as refusal:
        DiffusionStage.from_pretrained(tmp_path / "stage")
    assert "\n" not in str(refusal.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="the folder does not exist"):
        DiffusionStage.from_pretrained(tmp_path / "stage")


# ---- networks of one's own ----------------------------------------------------------------------


class Mixing(nn.Module):
    """A module of one's own, which mixes the channels of each pixel."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.config = {"channels": channels}
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x_t, t, signals):
        return self.mix(x_t)


def own_stage() -> DiffusionStage:
    torch.manual_seed(0)
    process = NoiseProcess(NoiseSchedule(train_steps=50))
    space = Space(size_px=(4, 6), channels=5, range=(0, 10_000))
    sampling = SamplingSettings(steps=2)
    return DiffusionStage(Mixing(channels=5), process, Contract(space), sampling=sampling)


def test_a_network_of_one_s_own_is_saved_and_loaded(tmp_path, monkeypatch):
    monkeypatch.setitem(MODULES, "mixing", Mixing)
    stage = own_stage()
    stage.save_pretrained(tmp_path / "stage")
    stage.save_pretrained(tmp_path / "stage")  # over the first one
    loaded = DiffusionStage.from_pretrained(tmp_path / "stage")
    assert loaded.config() == stage.config()
    images = stage.run([1])
    assert images.shape == (1, 5, 4, 6)
    assert loaded.run([1]).equal(images)


def test_a_network_that_could_not_be_loaded_again_is_not_saved(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"Mixing could not be loaded again: .*\.MODULES"):
        own_stage().save_pretrained(tmp_path / "stage")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(MODULES, "mixing", Mixing)
    own_stage().save_pretrained(tmp_path / "stage")
    monkeypatch.delitem(MODULES, "mixing")
    with pytest.raises(WeightsError, match=r"'mixing' is not in .*\.MODULES: known: "):
        DiffusionStage.from_pretrained(tmp_path / "stage")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("process.prediction", None, "process.prediction is None, but a stage would write v"),
        ("schedule.train_steps", None, "schedule.train_steps is None, but a stage would write"),
        ("process.logit_mean", float("nan"), "logit_mean must be a finite number, got nan"),
        ("contract.space.unit", None, "contract.space.unit is None"),
        ("sampling", None, "sampling"),
        ("comment", "mine", "comment is mine, but a stage would write None"),
    ],
)
def test_nothing_is_made_up_for_a_missing_key_or_passed_over(
    base_stage, tmp_path, path, value, words
):
    base_stage.save_pretrained(tmp_path / "stage")
    file = tmp_path / "stage" / "stage.json"
    config = json.loads(file.read_text())
    *outer, key = path.split(".")
    section = config
    for name in outer:
        section = section[name]
    if value is None:
        del section[key]
    else:
        section[key] = value
    file.write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=words):
        DiffusionStage.from_pretrained(tmp_path / "stage")


def test_a_sampler_without_a_name_is_refused(base_stage, tmp_path):
    class Mine(DDIM):
        pass

    stage = base_stage.with_sampling(base_stage.sampling.changed(sampler=Mine))
    with pytest.raises(WeightsError, match="sampler Mine has no name in the table of samplers"):
        stage.save_pretrained(tmp_path / "stage")
    assert not (tmp_path / "stage").exists()


def test_a_stage_is_saved_where_a_link_leads(base_stage, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    base_stage.save_pretrained(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "stage.json").is_file()


@pytest.mark.parametrize(
    ("file", "stranger"),
    [
        ("transformer/config.json", "transformer"),
        ("vision/alignment.json", "vision"),
        ("unet", "unet"),
        ("doubt.json", r"doubt\.json"),
        ("stage.json", r"stage\.json"),
    ],
)
def test_only_a_folder_whose_stage_json_describes_a_stage_is_replaced(
    base_stage, tmp_path, file, stranger
):
    own = tmp_path / "own" / file
    own.parent.mkdir(parents=True)
    own.write_text('{"kind": "theatre"}')
    with pytest.raises(OutputError, match=f"own holds other things, such as {stranger}, which"):
        base_stage.save_pretrained(tmp_path / "own")
    assert own.read_text() == '{"kind": "theatre"}'
