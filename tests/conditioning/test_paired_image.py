"""The first image of a pair, of the stage's own size."""

from __future__ import annotations

import pytest
import torch

from cascade.conditioning.batch import Batch
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.luminance import Luminance
from cascade.conditioning.paired_image import PairedImage
from cascade.contract import Contract
from cascade.errors import ContractError
from cascade.space import Space

BANDS = Space(size_px=16, channels=2, range=((0, 10), (0, 20)), unit="HU", show=(2,))


def test_the_contract_states_bands_range_and_size_of_the_input():
    same = PairedImage().image_space(BANDS)
    assert same == BANDS
    other = PairedImage(channels=3, range=(0, 4095)).image_space(BANDS)
    assert (other.size, other.channels, other.range, other.unit) == ((16, 16), 3, (0, 4095), "")
    per_band = PairedImage(channels=1, range=((-1, 1),)).image_space(Space(size_px=8))
    assert per_band.ranges == ((-1, 1),)
    with pytest.raises(ContractError, match="state the range of the first image too"):
        PairedImage(channels=3).image_space(BANDS)


def test_it_is_a_first_guess_only_with_the_bands_and_the_range_of_the_result():
    assert Contract(BANDS, (PairedImage(),)).residual_base().name == "paired_image"
    for other in (PairedImage(channels=2), PairedImage(range=((0, 10), (0, 20)))):
        with pytest.raises(ContractError, match="resembles the result"):
            Contract(BANDS, (other,)).residual_base()


def test_a_stage_follows_one_that_gives_such_images():
    contract = Contract(Space(size_px=16), (PairedImage(channels=1, range=(0, 255)),))
    grey = Contract(Space(size_px=16, channels=1))
    contract.check_follows(grey, name="second", previous_name="first")
    with pytest.raises(ContractError, match="'first' gives channels 3, 'second' takes 1"):
        contract.check_follows(Contract(Space(size_px=16)), name="second", previous_name="first")


def test_inputs_of_other_bands_or_sizes_are_refused(restorer):
    contract = restorer.contract
    with pytest.raises(ContractError, match="needs an image to start from: another image of 16 px"):
        contract.result_size(Inputs())
    with pytest.raises(ContractError, match=r"images must be \(B, 3, H, W\)"):
        contract.result_size(Inputs({"image": torch.zeros(1, 2, 16, 16)}))
    images = torch.zeros(1, 3, 16, 16)
    with pytest.raises(ContractError, match="which is missing; give pairs"):
        contract.inputs_of(Batch(images=images, seeds=(0,)))
    small = Batch(images=images, seeds=(0,), conditions={"paired_image": images[..., :8]})
    with pytest.raises(ContractError, match="must have the same size, got 8x16 and 16x16 px"):
        contract.inputs_of(small)


def test_what_the_network_sees_in_sampling_is_what_it_saw_in_training(restorer, record):
    """The same numbers in the same range, without noise at level 0."""
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    condition = restorer.contract.condition("paired_image")
    batch = Batch(images=-image, seeds=(1, 2), conditions={"paired_image": image})
    assert condition.input_of(batch, restorer.space).equal(image)
    calls = record(restorer)
    restorer.run([1, 2], Inputs({"image": image}))
    assert calls[0][2].channels["paired_image"].image[:2].equal(image)


@pytest.mark.parametrize("other", [LowResolution(size_px=4), Luminance()])
def test_one_stage_takes_one_image(other):
    with pytest.raises(ContractError, match="two conditions read the input 'image'"):
        Contract(Space(size_px=16), (PairedImage(), other))


def test_latents_have_no_pairs():
    with pytest.raises(ContractError, match="pairs are for stages that make pixels"):
        Contract(Space(size_px=16, channels=4, kind="latents"), (PairedImage(),))
