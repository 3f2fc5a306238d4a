from __future__ import annotations

import json
import shutil

import pytest
import torch

from cascade.chain import StageChain
from cascade.conditioning.labels import LabelVocabulary
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError, WeightsError
from cascade.stage import Stage


def stage(**contract) -> Stage:
    return Stage.build(
        Contract(**contract),
        NoiseProcess(NoiseSchedule(train_steps=10)),
        network_options={"channels": (8,), "blocks": 1},
        embedding_dim=8,
    )


def test_stages_keep_their_names_and_order(base_stage, upsampler):
    chain = StageChain({"base": base_stage, "larger": upsampler})
    assert chain.names == ["base", "larger"]
    assert dict(chain.items()) == {"base": base_stage, "larger": upsampler}
    assert chain["larger"] is upsampler
    with pytest.raises(ContractError, match=r"no stage 'lager' in this pipeline: .*'larger'"):
        chain["lager"]


@pytest.mark.parametrize(
    ("contract", "words"),
    [
        ({"size_px": 32, "low_res_px": 8}, ["size_px 16", "low_res_px 8"]),
        ({"size_px": 32, "low_res_px": 16, "channels": 1}, ["channels 3", "channels 1"]),
        (
            {"size_px": 32, "low_res_px": 16, "resize_kernel": "area"},
            ["resize_kernel bicubic", "resize_kernel area"],
        ),
        ({"size_px": 16}, ["is a base stage"]),
    ],
)
def test_stages_that_do_not_join_are_refused_with_both_numbers(base_stage, contract, words):
    with pytest.raises(ContractError, match=r"stages do not join: .*'base'") as error:
        StageChain({"base": base_stage, "next": stage(**contract)})
    for word in [*words, "'base'", "'next'"]:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_no_stages_and_bad_names_are_refused(base_stage):
    with pytest.raises(ContractError, match="at least one stage"):
        StageChain({})
    for name in ("../up", "a b", "", "a/b", "a.b"):
        with pytest.raises(ContractError, match="must be a word"):
            StageChain({name: base_stage})


def test_a_chain_may_start_with_an_upsampler(upsampler):
    second = stage(size_px=64, low_res_px=32)
    assert StageChain({"first": upsampler, "second": second}).names == ["first", "second"]


def test_replacing_checks_the_joins_anew(base_stage, upsampler):
    chain = StageChain({"base": base_stage, "larger": upsampler})
    other = stage(size_px=64, low_res_px=16)
    assert chain.replaced("larger", other)["larger"] is other
    assert chain["larger"] is upsampler
    with pytest.raises(ContractError, match=r"size_px 32.*low_res_px 16"):
        chain.replaced("base", stage(size_px=32))
    with pytest.raises(ContractError, match="no stage 'small'"):
        chain.replaced("small", other)


def test_saving_and_loading_is_exact(base_stage, upsampler, tmp_path):
    chain = StageChain({"base": base_stage, "larger": upsampler})
    chain.save_pretrained(tmp_path / "chain")
    loaded = StageChain.from_pretrained(tmp_path / "chain")
    assert loaded.names == chain.names
    assert loaded.state_dict().keys() == chain.state_dict().keys()
    for name, tensor in chain.state_dict().items():
        assert loaded.state_dict()[name].equal(tensor)
    assert [each.config() for _, each in loaded.items()] == [
        each.config() for _, each in chain.items()
    ]


def test_a_dtype_is_taken_by_every_weight(base_stage, upsampler, tmp_path):
    StageChain({"base": base_stage, "larger": upsampler}).save_pretrained(tmp_path / "chain")
    loaded = StageChain.from_pretrained(tmp_path / "chain", torch_dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    "listed", [{}, {"stages": "base"}, {"stages": ["../base"]}, {"stages": [1]}, {"stages": None}]
)
def test_a_list_that_does_not_name_stages_is_refused(base_stage, tmp_path, listed):
    StageChain({"base": base_stage}).save_pretrained(tmp_path / "chain")
    (tmp_path / "chain" / "chain.json").write_text(json.dumps(listed))
    with pytest.raises(WeightsError, match=r"chain\.json must list the names"):
        StageChain.from_pretrained(tmp_path / "chain")


def test_a_missing_stage_and_stages_that_do_not_join_are_refused(base_stage, upsampler, tmp_path):
    chain = StageChain({"base": base_stage, "larger": upsampler})
    chain.save_pretrained(tmp_path / "chain")
    shutil.move(tmp_path / "chain" / "larger", tmp_path / "larger")
    with pytest.raises(WeightsError, match=r"no stage at .*larger"):
        StageChain.from_pretrained(tmp_path / "chain")
    shutil.copytree(tmp_path / "chain" / "base", tmp_path / "chain" / "larger")
    with pytest.raises(ContractError, match="do not join"):
        StageChain.from_pretrained(tmp_path / "chain")


def test_vocabularies_may_differ_between_stages(base_stage):
    larger = Stage.build(
        Contract(size_px=32, low_res_px=16),
        NoiseProcess(NoiseSchedule(train_steps=10)),
        network_options={"channels": (8,), "blocks": 1},
        labels=LabelVocabulary({"style": ["noto", "sketch"]}),
        embedding_dim=8,
    )
    assert StageChain({"base": base_stage, "larger": larger}).names == ["base", "larger"]
