import json

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from cascade.errors import WeightsError
from cascade.networks.embedding import ConditionEmbedding
from cascade.saving.components import (
    component_entries,
    load_component,
    read_json,
    save_component,
    weights_digest,
)

VECTORS = {"labels": {"kind": "classes", "sizes": [3]}, "low_resolution": {"kind": "level"}}
FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ConditionEmbedding(vectors=VECTORS, dim=8)


@pytest.fixture
def folder(model, tmp_path):
    save_component(model, tmp_path)
    return tmp_path


def assert_refused(folder, message):
    with pytest.raises(WeightsError, match=message) as refusal:
        load_component(ConditionEmbedding, folder)
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)


def test_round_trip_is_exact_and_frees_nothing(model, folder):
    loaded = load_component(ConditionEmbedding, folder)
    assert not loaded.training
    assert loaded.config["vectors"] == VECTORS
    for (name, ours), theirs in zip(
        model.state_dict().items(), loaded.state_dict().values(), strict=True
    ):
        assert ours.equal(theirs), name


def test_the_parts_into_which_diffusers_divides_a_large_model_are_entries(tmp_path):
    UNet2DModel(block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
                down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
                ).save_pretrained(tmp_path, max_shard_size="10KB")  # fmt: skip
    written = {path.name for path in tmp_path.iterdir()}
    assert len(written) > 3
    (tmp_path / "diffusion_pytorch_model.fp16.safetensors").write_text("the user's")
    assert set(component_entries(tmp_path)) == written | {FILE}


def test_a_bfloat16_file_loads_in_float32_and_leaves_the_model_alone(model, tmp_path):
    save_component(model, tmp_path, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in load_file(tmp_path / FILE).values()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    for ours, theirs in zip(
        model.state_dict().values(),
        load_component(ConditionEmbedding, tmp_path).state_dict().values(),
        strict=True,
    ):
        assert theirs.equal(ours.bfloat16().float())


def test_missing_weights_are_refused(folder):
    (folder / FILE).unlink()
    assert_refused(folder, "no .safetensors file")


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights_are_refused(folder, kept):
    data = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(data[:kept])
    assert_refused(folder, "damaged or truncated")


@pytest.mark.parametrize("suffix", ["bin", "pt", "ckpt"])
def test_pickled_weights_are_refused_unread(folder, suffix):
    (folder / FILE).unlink()
    (folder / f"pytorch_model.{suffix}").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert_refused(folder, f"pickled weights .pytorch_model.{suffix}")


def test_a_pickle_under_a_safe_name_is_refused(model, folder):
    torch.save(model.state_dict(), folder / FILE)
    assert_refused(folder, "damaged or truncated")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.pop("parts.labels.0.weight"),
            "'parts.labels.0.weight' is missing",
        ),
        (
            lambda tensors: tensors.update({"parts.labels.0.weight": torch.zeros(5, 8)}),
            r"'parts.labels.0.weight' has shape \(5, 8\), the config asks for \(4, 8\)",
        ),
        (lambda tensors: tensors.update(other=torch.zeros(1)), "unknown tensor 'other'"),
    ],
)
def test_weights_of_another_model_are_refused(folder, change, message):
    tensors = load_file(folder / FILE)
    change(tensors)
    save_file(tensors, folder / FILE)
    assert_refused(folder, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "missing or unreadable"),
        ("", "not valid JSON"),
        ('{"dim": ', "not valid JSON"),
        ("[1]", "must hold a JSON object"),
        (json.dumps({"vectors": 3}), "does not describe a ConditionEmbedding"),
    ],
)
def test_a_damaged_config_is_refused(folder, text, message):
    if text is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text(text)
    assert_refused(folder, message)


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="missing or unreadable"):
        read_json(tmp_path)


def test_the_weights_digest_sees_names_values_precision_and_order():
    a, b = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    same = torch.nn.Linear(2, 3)
    same.load_state_dict(a.state_dict())
    half = torch.nn.Linear(2, 3).bfloat16()
    renamed = torch.nn.Sequential(a)
    assert weights_digest(same) == weights_digest(a)
    modules = [(a,), (b,), (half,), (renamed,), (a, b), (b, a)]
    assert len({weights_digest(*each) for each in modules}) == len(modules)
    assert weights_digest(a, b) == weights_digest(same, b)
