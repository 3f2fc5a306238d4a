import json

import pytest

from cascade.contract import Contract
from cascade.errors import ContractError

BASE = Contract(size_px=16)
UPSAMPLER = Contract(size_px=64, low_res_px=16, augmentation_range=(0.1, 0.5))


def check(previous, contract=UPSAMPLER):
    contract.check_follows(previous, name="up", previous_name="base")


GREY = Contract(size_px=64, takes="grey")


def test_what_is_taken_follows_from_low_res_px_unless_it_is_said():
    assert [each.takes for each in (BASE, UPSAMPLER, GREY)] == ["noise", "low_res", "grey"]
    assert [each.image_channels for each in (BASE, UPSAMPLER, GREY)] == [0, 3, 1]
    assert [each.takes_image for each in (BASE, UPSAMPLER, GREY)] == [False, True, True]
    assert [each.taken for each in (BASE, UPSAMPLER, GREY)] == ["noise", "16 px", "grey 64 px"]
    assert Contract(size_px=16, takes="noise") == BASE


def test_a_grey_stage_gives_its_size_to_an_upsampler_and_follows_a_grey_base_only():
    check(GREY, Contract(size_px=128, low_res_px=64))
    check(Contract(size_px=64, channels=1), GREY)
    with pytest.raises(ContractError, match="'base' gives channels 3, 'up' takes channels 1"):
        check(Contract(size_px=64), GREY)
    with pytest.raises(ContractError, match="'base' gives size_px 32, 'up' takes size_px 64"):
        check(Contract(size_px=32, channels=1), GREY)
    with pytest.raises(ContractError, match="gives size_px 64, 'up' takes low_res_px 16"):
        check(GREY)


def test_stages_that_agree_join():
    check(BASE)
    assert UPSAMPLER.scale == 4
    assert BASE.scale == 1


@pytest.mark.parametrize(
    ("previous", "message"),
    [
        (Contract(size_px=32), "'base' gives size_px 32, 'up' takes low_res_px 16"),
        (Contract(size_px=16, channels=1), "'base' gives channels 1, 'up' takes channels 3"),
        (
            Contract(size_px=16, resize_kernel="area"),
            "'base' gives resize_kernel area, 'up' takes resize_kernel bicubic",
        ),
    ],
)
def test_stages_that_disagree_are_refused_by_name_and_number(previous, message):
    with pytest.raises(ContractError, match=message):
        check(previous)


def test_a_base_stage_follows_nothing():
    with pytest.raises(ContractError, match="gives size_px 16, 'up' takes low_res_px None"):
        check(BASE, Contract(size_px=16))


@pytest.mark.parametrize("level", [0.0, 0.09, 0.51, 1.0, float("nan")])
def test_levels_that_training_has_not_seen_are_refused(level):
    with pytest.raises(ContractError, match=rf"in \[0.1, 0.5\].*got {level}"):
        UPSAMPLER.check_augmentation_level(level)


def test_levels_at_the_ends_of_the_range_are_taken():
    UPSAMPLER.check_augmentation_level(0.1)
    UPSAMPLER.check_augmentation_level(0.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low_res_px": 24}, "64 must be a whole multiple of low_res_px 24"),
        ({"low_res_px": 128}, "64 must be a whole multiple of low_res_px 128"),
        ({"low_res_px": 0}, "low_res_px 0 must be at least 1"),
        ({"takes": "gray"}, "unknown takes 'gray': did you mean 'grey'"),
        ({"takes": "grey", "low_res_px": 16}, "takes 'grey' and low_res_px 16 do not go together"),
        ({"takes": "low_res"}, "takes 'low_res' and low_res_px None do not go"),
        ({"takes": "noise", "low_res_px": 16}, "takes 'noise' and low_res_px 16 do not go"),
        ({"takes": "grey", "channels": 1}, "takes grey gives 3 channels, not 1"),
        ({"augmentation_range": (0.5, 0.1)}, r"got \(0.5, 0.1\)"),
        ({"augmentation_range": (0.0, 1.1)}, r"got \(0.0, 1.1\)"),
        ({"augmentation_range": (-0.1, 0.1)}, r"got \(-0.1, 0.1\)"),
    ],
)
def test_impossible_numbers_are_refused(values, message):
    with pytest.raises(ContractError, match=message):
        Contract(size_px=64, **values)


@pytest.mark.parametrize("contract", [BASE, UPSAMPLER, GREY])
def test_json_round_trip(contract):
    assert Contract.from_dict(json.loads(json.dumps(contract.to_dict()))) == contract


def test_keys_of_a_newer_version_are_refused():
    with pytest.raises(ContractError, match="'depth_px'"):
        Contract.from_dict(BASE.to_dict() | {"depth_px": 3})
