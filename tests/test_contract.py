"""Contracts: what a stage gives and takes, its neighbours, its inputs, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import final

import pytest
import torch

from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition
from cascade.conditioning.degradation import Degradation
from cascade.conditioning.faults.compression import Compression
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.luminance import Luminance
from cascade.conditioning.slots import Slots
from cascade.contract import Contract
from cascade.errors import CascadeError, ContractError
from cascade.resizing import resize
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space

CLASSES = Labels(fields={"animal": ["cat", "dog"]})
BASE = Contract(Space(size_px=16), (CLASSES,))
UPSAMPLER = Contract(
    Space(size_px=64), (CLASSES, LowResolution(size_px=16, augmentation_range=(0.1, 0.5)))
)
GREY = Contract(Space(size_px=64), (Luminance(drop=0.1),))


def check(previous, contract=UPSAMPLER):
    contract.check_follows(previous, name="up", previous_name="base")


def upsampler(size_px, **space):
    """A contract that doubles."""
    small = size_px // 2 if isinstance(size_px, int) else tuple(each // 2 for each in size_px)
    return Contract(Space(size_px=size_px, **space), (LowResolution(size_px=small),))


# ---- what the conditions say --------------------------------------------------------------------


def test_what_is_taken_follows_from_the_conditions():
    contracts = (BASE, UPSAMPLER, GREY)
    assert [each.needs_image for each in contracts] == [False, True, True]
    assert [each.description for each in contracts] == ["noise", "16 px", "greyscale 64 px"]
    assert [[s.channels for s in each.image_spaces] for each in contracts] == [[], [3], [1]]
    assert [each.scale for each in contracts] == [1, 4, 1]
    assert [each.input_names for each in contracts] == [["labels"], ["labels", "image"], ["image"]]
    assert [[c.name for c in each.droppable] for each in contracts] == [
        ["labels"],
        ["labels"],
        ["luminance"],
    ]


def test_a_condition_is_found_by_its_name():
    assert UPSAMPLER.condition("labels") is CLASSES
    assert BASE.condition("low_resolution") is None


def test_a_degradation_makes_a_stage_that_restores():
    assert not UPSAMPLER.restores
    restoring = LowResolution(size_px=16, degradation=Degradation())
    assert Contract(Space(size_px=64), (restoring,)).restores


def test_a_pipeline_may_start_at_the_size_that_is_taken():
    assert not BASE.accepts_size((16, 16))
    assert UPSAMPLER.accepts_size((16, 16))
    assert not UPSAMPLER.accepts_size((16, 18))
    assert all(GREY.accepts_size(size) for size in ((64, 64), (7, 90)))
    wide = upsampler((48, 80))
    assert wide.accepts_size((24, 40))
    assert not wide.accepts_size((40, 24))


def test_the_size_of_the_result_follows_from_the_image():
    image = torch.zeros(1, 3, 10, 7)
    assert BASE.result_size(Inputs()) == (16, 16)
    assert Contract(Space(size_px=(48, 80))).result_size(Inputs()) == (48, 80)
    assert UPSAMPLER.result_size(Inputs({"image": image})) == (40, 28)
    assert UPSAMPLER.result_size(Inputs(), image) == (40, 28)
    assert GREY.result_size(Inputs({"image": image})) == (10, 7)
    with pytest.raises(ContractError, match="needs an image to start from: 16 px"):
        UPSAMPLER.result_size(Inputs())


def test_what_a_user_would_give_for_true_pictures_is_made_from_them():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = torch.tensor([[0], [1]])
    batch = Batch(images=images, seeds=(1, 2), conditions={"labels": labels})
    inputs = UPSAMPLER.inputs_of(batch)
    assert inputs.get("labels").equal(labels)
    small = resize(images, (16, 16), "bicubic")
    torch.testing.assert_close(inputs.get("image"), small, rtol=0, atol=1 / 255)
    assert GREY.inputs_of(batch).get("image").shape == (2, 1, 64, 64)
    restoring = LowResolution(size_px=16, degradation=Degradation())
    contract = Contract(Space(size_px=64), (restoring,))
    assert contract.inputs_of(batch).get("image").equal(inputs.get("image"))
    assert not contract.inputs_of(batch, degraded=True).get("image").equal(inputs.get("image"))


# ---- neighbours ---------------------------------------------------------------------------------


def test_stages_that_agree_join():
    check(BASE)
    check(GREY, upsampler(128))
    check(Contract(Space(size_px=64, channels=1)), GREY)
    check(Contract(Space(size_px=(24, 40))), upsampler((48, 80)))
    bands = {"channels": 5, "range": (0, 10_000), "unit": "reflectance"}
    check(Contract(Space(size_px=16, **bands)), upsampler(32, **bands))


@pytest.mark.parametrize(
    ("previous", "message"),
    [
        (Space(size_px=32), "'base' gives size_px 32x32, 'up' takes 16x16"),
        (Space(size_px=(16, 32)), "'base' gives size_px 32x16, 'up' takes 16x16"),
        (Space(size_px=16, channels=1), "'base' gives channels 1, 'up' takes 3"),
        (Space(size_px=16, kind="latents"), "'base' gives kind latents, 'up' takes pixels"),
        (
            Space(size_px=16, range=(0, 10_000)),
            r"'base' gives range \(0\.0, 10000\.0\), 'up' takes \(0\.0, 255\.0\)",
        ),
        (Space(size_px=16, unit="HU"), "'base' gives unit HU, 'up' takes "),
        (
            Space(size_px=16, resize_kernel="area"),
            "'base' gives resize_kernel area, 'up' takes bicubic",
        ),
    ],
)
def test_stages_that_disagree_are_refused_by_name_and_number(previous, message):
    with pytest.raises(ContractError, match=f"stages do not fit together: {message}") as error:
        check(Contract(previous))
    assert "\n" not in str(error.value)


def test_a_grey_stage_follows_a_grey_base_of_its_size_only():
    with pytest.raises(ContractError, match="'base' gives channels 3, 'up' takes 1"):
        check(Contract(Space(size_px=64)), GREY)
    with pytest.raises(ContractError, match="'base' gives size_px 32x32, 'up' takes 64x64"):
        check(Contract(Space(size_px=32, channels=1)), GREY)
    with pytest.raises(ContractError, match="gives size_px 64x64, 'up' takes 16x16"):
        check(GREY)


def test_a_base_stage_follows_nothing():
    with pytest.raises(ContractError, match="'up' is a base stage and takes no image, but follows"):
        check(BASE, Contract(Space(size_px=16)))


# ---- what has no bounds -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["latents", "embeddings"])
def test_what_has_no_bounds_is_not_clipped_by_default_nor_on_demand(kind):
    contract = Contract(Space(size_px=1, channels=4, kind=kind))
    assert contract.default_sampling.threshold == "none"
    contract.check_sampling(contract.default_sampling)
    with pytest.raises(ContractError, match=f"threshold static is for pixels.*none for {kind}"):
        contract.check_sampling(SamplingSettings())
    assert Contract(Space(size_px=1)).default_sampling == SamplingSettings()


# ---- augmentation levels ------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 0.09, 0.51, 1.0, float("nan")])
def test_levels_that_training_has_not_seen_are_refused(level):
    with pytest.raises(ContractError, match=rf"in \[0.1, 0.5\].*got {level}"):
        UPSAMPLER.check_augmentation_level(level)


def test_levels_at_the_ends_of_the_range_are_taken():
    UPSAMPLER.check_augmentation_level(0.1)
    UPSAMPLER.check_augmentation_level(0.5)


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (lambda: LowResolution(size_px=24), "64x64 px must be a whole multiple of 24x24 px"),
        (lambda: LowResolution(size_px=128), "64x64 px must be a whole multiple of 128x128 px"),
        (lambda: LowResolution(size_px=(16, 32)), "64x64 px must be a whole multiple of 32x16"),
        (lambda: LowResolution(size_px=0), "must be at least 1 px, got 0"),
        (lambda: Labels(fields={}), "at least one field with at least one class, got {}"),
        (lambda: Labels(fields={"class": []}), "at least one field with at least one class"),
        *(
            (
                lambda each=each, kind=kind: kind(augmentation_range=each),
                rf"got \({each[0]}, {each[1]}\)",
            )
            for each in ((0.5, 0.1), (0.0, 1.1), (-0.1, 0.1))
            for kind in (Luminance, lambda **values: LowResolution(size_px=16, **values))
        ),
    ],
)
def test_conditions_that_do_not_go_with_the_space_are_refused(condition, message):
    with pytest.raises(ContractError, match=message):
        Contract(Space(size_px=64), (condition(),))


def test_conditions_for_other_channels_are_refused():
    one, five = Space(size_px=64, channels=1), Space(size_px=64, channels=5)
    with pytest.raises(ContractError, match="colourises greyscale images needs 3 channels, got 1"):
        Contract(one, (Luminance(),))
    damaged = LowResolution(size_px=16, degradation=Degradation())
    with pytest.raises(ContractError, match=r"is for images of 3 channels.* has 5"):
        Contract(five, (damaged,))
    assert Contract(five, (LowResolution(size_px=16),)).image_spaces[0].channels == 5


@final
@dataclass(frozen=True, kw_only=True)
class Edges(Condition):
    """A condition whose name and input a test chooses."""

    name = "edges"
    input_name = "edges"
    recipe = dict

    def slots(self, space):
        return Slots(channels=1)

    def of_batch(self, batch, space, noise):
        raise NotImplementedError

    def of_request(self, request):
        raise NotImplementedError

    def absent(self, signals):
        raise NotImplementedError

    def input_of(self, batch, space, *, degraded=False):
        return None


def test_two_conditions_of_one_name_are_refused():
    with pytest.raises(ContractError, match="two conditions are called 'labels'; a stage can"):
        Contract(Space(size_px=16), (CLASSES, CLASSES))


def test_two_conditions_that_read_one_input_are_refused():
    with pytest.raises(ContractError, match="two conditions read the input 'image'; a stage can"):
        Contract(Space(size_px=64), (LowResolution(size_px=16), Luminance()))
    Contract(Space(size_px=64), (LowResolution(size_px=16), Edges()))


@pytest.mark.parametrize(
    ("contract", "name", "fitting"),
    [
        (UPSAMPLER, "mask", "labels, image"),
        (GREY, "labels", "image"),
        (Contract(Space(size_px=16)), "labels", "none"),
    ],
)
def test_inputs_that_no_condition_reads_are_refused_with_those_that_are(contract, name, fitting):
    with pytest.raises(
        ContractError, match=f"no condition that reads '{name}'; its inputs: {fitting}\\."
    ):
        contract.check_inputs(Inputs({name: [0]}), None, 1)
    contract.check_inputs(Inputs({name: None}), None, 1)


@pytest.mark.parametrize(
    ("contract", "inputs", "previous", "message"),
    [
        (
            UPSAMPLER,
            {"image": torch.zeros(2, 3, 16, 16)},
            None,
            "got 2 entries of image for 1 seed",
        ),
        (UPSAMPLER, {}, torch.zeros(2, 3, 16, 16), "got 2 images to start from for 1 seeds"),
        (BASE, {}, torch.zeros(1, 3, 16, 16), "is a base stage and takes no image"),
    ],
)
def test_inputs_for_another_number_of_images_are_refused(contract, inputs, previous, message):
    with pytest.raises(ContractError, match=message):
        contract.check_inputs(Inputs(inputs), previous, 1)


def test_inputs_that_call_for_different_sizes_are_refused():
    @final
    @dataclass(frozen=True, kw_only=True)
    class Sized(Edges.__base__):
        """A condition that asks for a result of 5x7 px."""

        name = "sized"
        input_name = "sized"
        recipe = dict
        slots, of_batch, of_request = Edges.slots, Edges.of_batch, Edges.of_request
        absent, input_of = Edges.absent, Edges.input_of

        def result_size(self, inputs, previous, space):
            return (7, 5)

    contract = Contract(Space(size_px=64), (Luminance(), Sized()))
    with pytest.raises(ContractError, match="results of different sizes, 9x8 px and 5x7 px"):
        contract.result_size(Inputs({"image": torch.zeros(1, 1, 8, 9)}))


# ---- saving -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "contract",
    [
        BASE,
        UPSAMPLER,
        GREY,
        upsampler((48, 80), channels=5, range=(0, 10_000), unit="reflectance"),
        Contract(
            Space(size_px=64),
            (
                LowResolution(
                    size_px=16,
                    quantised=False,
                    blur_probability=0.5,
                    degradation=Degradation(
                        probability=0.3, compression=Compression(probability=0.0)
                    ),
                    drop=0.25,
                ),
            ),
        ),
    ],
)
def test_json_round_trip(contract):
    assert Contract.from_dict(json.loads(json.dumps(contract.to_dict()))) == contract


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values["space"].update(depth_px=3), "depth_px"),
        (lambda values: values.update(depth={}), "depth"),
        (lambda values: values["conditions"].update(lables={}), "'lables': did you mean 'labels'"),
        (lambda values: values["conditions"]["labels"].update(width=3), "width"),
        (lambda values: values.pop("space"), "space"),
        (lambda values: values.pop("conditions"), "conditions"),
        (lambda values: values.update(space=3), "must be a mapping, not int"),
        (lambda values: values.update(conditions=[]), "do not describe a contract"),
        (lambda values: values["space"].update(size_px="x"), "size_px must be a whole number"),
    ],
)
def test_what_does_not_describe_a_contract_is_refused(change, words):
    values = json.loads(json.dumps(BASE.to_dict()))
    change(values)
    with pytest.raises(CascadeError, match=words):
        Contract.from_dict(values)
