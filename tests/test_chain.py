"""Chains: stages that join, by name, with their weights and with changes of their settings."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from cascade.chain import StageChain
from cascade.conditioning.condition import Condition
from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, WeightsError
from cascade.sampling.overrides import Overrides
from cascade.space import Space


def stage(
    size_px: int | tuple[int, int], *conditions: Condition, small_px=None, **space
) -> DiffusionStage:
    """A tiny stage; `small_px` adds a low-resolution image of that size."""
    if small_px is not None:
        conditions = (*conditions, LowResolution(size_px=small_px))
    return DiffusionStage.build(
        Contract(Space(size_px=size_px, **space), conditions),
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
    ("values", "words"),
    [
        ({"size_px": 32, "small_px": 8}, ["size_px 16x16", "takes 8x8"]),
        ({"size_px": 32, "small_px": 16, "channels": 1}, ["channels 3", "takes 1"]),
        (
            {"size_px": 32, "small_px": 16, "resize_kernel": "area"},
            ["resize_kernel bicubic", "takes area"],
        ),
        (
            {"size_px": 32, "small_px": 16, "range": (0, 100)},
            ["(0.0, 255.0)", "takes (0.0, 100.0)"],
        ),
        ({"size_px": (32, 64), "small_px": (16, 32)}, ["size_px 16x16", "takes 32x16"]),
        ({"size_px": 16}, ["is a base stage"]),
    ],
)
def test_stages_that_do_not_join_are_refused_with_both_values(base_stage, values, words):
    following = stage(**values)
    with pytest.raises(ContractError, match=r"stages do not fit together: .*'base'") as error:
        StageChain({"base": base_stage, "next": following})
    for word in [*words, "'base'", "'next'"]:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_no_stages_and_bad_names_are_refused(base_stage):
    with pytest.raises(ContractError, match="at least one stage"):
        StageChain({})
    for name in ("../up", "a b", "", "a/b", "a.b"):
        with pytest.raises(ContractError, match="must be a word"):
            StageChain({name: base_stage})
    with pytest.raises(ContractError, match="'all' stands for every stage"):
        StageChain({"all": base_stage})


def test_a_chain_may_start_with_an_upsampler(upsampler):
    second = stage(64, small_px=32)
    assert StageChain({"first": upsampler, "second": second}).names == ["first", "second"]


def test_replacing_checks_the_joins_anew(base_stage, upsampler):
    chain = StageChain({"base": base_stage, "larger": upsampler})
    other = stage(64, small_px=16)
    assert chain.replaced("larger", other)["larger"] is other
    assert chain["larger"] is upsampler
    with pytest.raises(ContractError, match=r"size_px 32x32.*takes 16x16"):
        chain.replaced("base", stage(32))
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
    with pytest.raises(ContractError, match="do not fit together"):
        StageChain.from_pretrained(tmp_path / "chain")


def test_vocabularies_may_differ_between_stages(base_stage):
    larger = stage(32, Labels(fields={"style": ["noto", "sketch"]}), small_px=16)
    assert StageChain({"base": base_stage, "larger": larger}).names == ["base", "larger"]


# ---- parts of a chain ---------------------------------------------------------------------------


def test_the_chain_from_a_stage_on_holds_that_stage_and_those_after_it(base_stage, upsampler):
    chain = StageChain({"base": base_stage, "larger": upsampler, "last": stage(64, small_px=32)})
    assert chain.first is base_stage
    assert chain.last is chain["last"]
    rest = chain.between("larger")
    assert rest.names == ["larger", "last"]
    assert rest.first is upsampler
    assert chain.between("base").names == chain.names
    assert chain.between("base", "larger").names == ["base", "larger"]
    with pytest.raises(ContractError, match="no stage 'lager'"):
        chain.between("lager")


# ---- settings -----------------------------------------------------------------------------------


@pytest.fixture
def chain(base_stage, upsampler) -> StageChain:
    return StageChain({"base": base_stage, "larger": upsampler})


def test_changes_reach_their_stages_and_leave_the_chain_as_it_was(chain):
    before = {name: stage.sampling for name, stage in chain.items()}
    overrides = Overrides({"all": {"steps": 3}, "larger": {"steps": 5, "eta": 0.5}})
    changed = chain.with_sampling(overrides)
    assert changed["base"].sampling == before["base"].changed(steps=3)
    assert changed["larger"].sampling == before["larger"].changed(steps=5, eta=0.5)
    assert {name: stage.sampling for name, stage in chain.items()} == before
    for name, parameter in chain.named_parameters():
        assert changed.get_parameter(name) is parameter


def test_settings_of_images_reach_only_the_stages_that_take_one(chain):
    overrides = Overrides({"all": {"augmentation_level": 0.7, "temperature": 0.5}})
    changed = chain.with_sampling(overrides)
    assert changed["base"].sampling == chain["base"].sampling
    larger = changed["larger"].sampling
    assert (larger.augmentation_level, larger.temperature) == (0.7, 0.5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lager": {"steps": 3}}, "no stage 'lager' in this pipeline: did you mean 'larger'"),
        ({"all": {"step": 3}}, "unknown sampling setting 'step': did you mean 'steps'"),
        ({"larger": {"steps": 101}}, "1 to 100.*got 101"),
        ({"base": {"augmentation_level": 0.3}}, "augmentation_level: stage 'base' takes no image"),
        ({"base": {"temperature": 0.3}}, "temperature: stage 'base' takes no image"),
    ],
)
def test_changes_that_do_not_fit_are_refused(chain, values, words):
    with pytest.raises(ContractError, match=words):
        chain.with_sampling(Overrides(values))


def test_settings_of_images_without_a_stage_that_takes_one_are_refused(base_stage):
    chain = StageChain({"base": base_stage})
    for name in ("augmentation_level", "temperature"):
        with pytest.raises(ContractError, match=f"{name}: no stage of this run takes an image"):
            chain.with_sampling(Overrides({"all": {name: 0.3}}))
