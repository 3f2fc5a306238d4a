import pytest
import torch

from cascade.conditioning.inputs import Inputs, Request
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.space import Space


@pytest.fixture
def inputs():
    """An image and labels of three images."""
    labels = [{"class": "cat"}, {}, {"class": "dog"}]
    return Inputs({"image": torch.arange(3.0).view(3, 1, 1, 1), "labels": labels})


def test_inputs_of_different_counts_are_refused():
    with pytest.raises(ContractError, match="same number of images, got 2 for image, 1 for labels"):
        Inputs({"image": torch.zeros(2, 3, 8, 8), "labels": [{}]})


def test_what_is_none_is_not_there():
    inputs = Inputs({"image": None, "labels": [{}]})
    assert list(inputs.values) == ["labels"]
    assert inputs.get("image") is None


def test_the_count_is_that_of_the_seeds(inputs):
    inputs.check_count(3)
    Inputs().check_count(7)
    with pytest.raises(ContractError, match="got 3 entries of image for 2 seeds"):
        inputs.check_count(2)


def test_a_part_cuts_every_input_alike(inputs):
    part = inputs.part(slice(1, 3))
    assert part.get("image").flatten().tolist() == [1, 2]
    assert part.get("labels") == [{}, {"class": "dog"}]


def test_inputs_are_chosen_and_replaced_by_name(inputs):
    assert list(inputs.only(["labels", "mask"]).values) == ["labels"]
    other = torch.ones(3, 1, 1, 1)
    assert inputs.with_value("image", other).get("image") is other
    assert inputs.with_value("mask", other).get("labels") is inputs.get("labels")
    assert list(inputs.with_value("image", None).values) == ["labels"]
    assert inputs.get("image").flatten().tolist() == [0, 1, 2]


def test_a_request_takes_the_previous_result_before_the_user_s_image(inputs):
    values = {
        "inputs": inputs,
        "space": Space(size_px=8),
        "size_px": (8, 8),
        "augmentation_level": 0.0,
        "noise": SeededNoise([4, 5, 6]),
    }
    previous = torch.zeros(3, 3, 4, 4)
    assert Request(previous=previous, **values).image is previous
    assert Request(previous=None, **values).image is inputs.get("image")
    assert Request(previous=None, **{**values, "inputs": Inputs()}).image is None
    assert Request(previous=None, **values).count == 3
