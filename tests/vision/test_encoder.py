"""Embeddings of images: their scale, their caches, towers in files, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from cascade.errors import ContractError, WeightsError
from cascade.text.encoder import EncoderFacts
from cascade.vision import encoders, tower
from cascade.vision.efficientnet import EfficientNetLite
from cascade.vision.encoder import VisionEncoder, VisionFacts, as_images
from cascade.vision.encoders import copy_tower, find_vision_encoder, remember_folder
from cascade.vision.tower import Tower, TowerFacts, TowerHead


class Means(VisionEncoder):
    """Embeds a picture by its mean colour."""

    facts = VisionFacts("means", "2" * 64, 3)
    seen_px = 2

    def to(self, device):
        pass

    def directions(self, seen):
        return nn.functional.normalize(seen.mean(dim=(2, 3)) + 0.1, dim=1)


@pytest.fixture
def lite(monkeypatch):
    """EfficientNet-Lite0 with random weights, which takes the place of the package's."""
    torch.manual_seed(0)
    network = EfficientNetLite().eval()
    monkeypatch.setattr(tower, "load_efficientnet", lambda size: network)
    return network


@pytest.fixture
def tiny_tower(lite):
    torch.manual_seed(1)
    letters = EncoderFacts("letters", "0" * 64, 26, 26)
    facts = TowerFacts(
        name="tiny-tower", encoder=letters, size_px=32, seen_px=16, width=16, training="nothing"
    )
    return Tower(facts, TowerHead(1280 + 288, 26, 16), lite)


def test_every_entry_has_a_standard_deviation_of_1():
    vectors = nn.functional.normalize(torch.randn(4096, 256), dim=1)
    images = as_images(vectors)
    assert images.shape == (4096, 256, 1, 1)
    assert float(vectors.std()) == pytest.approx(1 / 16, rel=0.01)
    torch.testing.assert_close(images.flatten(1).std(dim=0), torch.ones(256), atol=0.06, rtol=0)


def test_embeddings_of_a_model_are_scaled_once():
    encoded = Means().encode(torch.rand(5, 3, 8, 8))
    torch.testing.assert_close(encoded.square().mean(dim=1).flatten(), torch.ones(5), rtol=2e-3,
                               atol=0)  # fmt: skip


def test_weights_other_than_the_contract_s_are_refused(monkeypatch):
    monkeypatch.setattr(encoders, "find_vision_encoder", lambda name: Means())
    other = replace(Means.facts, sha256="3" * 64)
    with pytest.raises(ContractError, match=r"'means' must be 3 wide .*333333.*but .*222222"):
        encoders.vision_encoder_of(other)


def test_a_picture_has_the_same_embedding_at_any_size_and_in_any_batch(tiny_tower):
    large = torch.rand(2, 3, 64, 64) * 2 - 1
    small = tiny_tower.seen(large)
    assert small.shape == (2, 3, 16, 16)
    assert tiny_tower.encode(small).equal(tiny_tower.encode(large))
    alone = tiny_tower.encode(large[1:])
    torch.testing.assert_close(alone, tiny_tower.encode(large)[1:], atol=5e-3, rtol=0)


def test_the_middle_square_is_what_counts(tiny_tower):
    wide = torch.rand(1, 3, 16, 20) * 2 - 1
    other = wide.clone()
    other[..., [0, 1, 18, 19]] = 0
    assert tiny_tower.encode(wide).equal(tiny_tower.encode(other))
    grey = torch.rand(1, 1, 16, 16)
    assert tiny_tower.encode(grey).equal(tiny_tower.encode(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(ContractError, match=r"must be \(B, 1 or 3, H, W\), got \(1, 4, 8, 8\)"):
        tiny_tower.encode(torch.rand(1, 4, 8, 8))


def test_a_tower_is_found_by_folder_then_by_name_and_goes_with_a_stage(
    tiny_tower, tmp_path, monkeypatch
):
    monkeypatch.setattr(encoders, "_opened", {})
    tiny_tower.write(tmp_path / "a")
    found = find_vision_encoder(str(tmp_path / "a"))
    assert found.facts == tiny_tower.facts
    assert find_vision_encoder("tiny-tower").facts == tiny_tower.facts
    copy_tower(found.facts, tmp_path / "b")
    encoders._opened.clear()
    with pytest.raises(ContractError, match="no image encoder 'tiny-tower': it must be"):
        find_vision_encoder("tiny-tower")
    remember_folder(found.facts, tmp_path / "b")
    image = torch.rand(1, 3, 16, 16)
    assert find_vision_encoder("tiny-tower").encode(image).equal(found.encode(image))
    copy_tower(replace(found.facts, sha256="0" * 64), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_stage_s_own_tower_counts_though_another_of_its_name_is_found_first(
    tiny_tower, lite, tmp_path, monkeypatch
):
    monkeypatch.setattr(encoders, "_opened", {})
    retrained = Tower(tiny_tower.tower_facts, TowerHead(1280 + 288, 26, 16), lite)
    assert retrained.facts.name == tiny_tower.facts.name
    tiny_tower.write(tmp_path / "stage" / "vision")
    retrained.write(tmp_path / "towers" / "tiny-tower")
    monkeypatch.setenv(encoders.SEARCH, str(tmp_path / "towers"))
    remember_folder(tiny_tower.facts, tmp_path / "stage" / "vision")
    assert encoders.vision_encoder_of(tiny_tower.facts).facts == tiny_tower.facts
    assert encoders.vision_encoder_of(retrained.facts).facts == retrained.facts
    assert find_vision_encoder("tiny-tower").facts == retrained.facts  # that of new stages
    copy_tower(tiny_tower.facts, tmp_path / "copy")
    assert tower.vision_facts(tmp_path / "copy") == tiny_tower.facts


def test_a_tower_in_a_listed_folder_is_found_by_the_folder_s_name(
    tiny_tower, tmp_path, monkeypatch
):
    tiny_tower.write(tmp_path / "mine")
    monkeypatch.setenv(encoders.SEARCH, str(tmp_path))
    assert find_vision_encoder("mine").facts == tiny_tower.facts


def test_a_damaged_tower_is_one_line(tiny_tower, tmp_path):
    tiny_tower.write(tmp_path)
    (tmp_path / tower.CONFIG).write_text(json.dumps({"name": "tiny-tower"}))
    with pytest.raises(WeightsError, match="does not describe a tower"):
        find_vision_encoder(str(tmp_path))
    tiny_tower.write(tmp_path)
    (tmp_path / tower.WEIGHTS).write_bytes(b"\0" * 20)
    with pytest.raises(WeightsError, match="not the weights of a tower"):
        find_vision_encoder(str(tmp_path))


def test_the_image_half_of_a_clip_is_that_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    half = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip
    config = transformers.CLIPVisionConfig(image_size=32, patch_size=8, projection_dim=12, **half)
    torch.manual_seed(0)
    network = transformers.CLIPVisionModelWithProjection(config).eval()
    network.save_pretrained(tmp_path / "tiny-clip")
    encoder = find_vision_encoder(str(tmp_path / "tiny-clip"))
    assert (encoder.facts.name, encoder.facts.width) == ("tiny-clip", 12)
    seen = encoder.seen(torch.rand(2, 3, 40, 40) * 2 - 1)
    mean, std = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    pixels = ((seen + 1) / 2 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        theirs = network(pixel_values=pixels).image_embeds
    torch.testing.assert_close(
        encoder.directions(seen), nn.functional.normalize(theirs, dim=1), atol=1e-5, rtol=0
    )
