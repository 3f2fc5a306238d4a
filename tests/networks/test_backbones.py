from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cascade.conditioning.signals import ChannelSignal, Signals
from cascade.conditioning.slots import Classes, Dense, Level, Slots
from cascade.errors import ContractError, RecipeError
from cascade.networks.backbone_network import NetworkShape
from cascade.networks.backbones import (
    StageTransformer,
    StageUNet,
    build_network,
)
from cascade.networks.image_encoder import ImageEncoder

SLOTS = {
    "labels": Slots(vector=Classes((3, 2))),
    "low_resolution": Slots(channels=3, vector=Level()),
}
SHAPE = NetworkShape(image_channels=3, out_channels=3, size=(32, 32), slots=SLOTS, embedding_dim=16)
OPTIONS = {
    "unet": {"patch_size": 2, "channels": (8, 16), "blocks": 1, "attention": (False, True)},
    "transformer": {
        "patch_size": 4,
        "width": 32,
        "depth": 1,
        "fine_width": 16,
        "fine_depth": 1,
        "head_channels": 4,
    },
}


@pytest.fixture(params=OPTIONS)
def network(request):
    """Untrained network of an upsampler to 32 px with two label fields."""
    torch.manual_seed(0)
    return build_network(request.param, SHAPE, OPTIONS[request.param])


@pytest.fixture
def inputs():
    """x_t of 16x24 px, times and signals of a batch of two."""
    x_t, image = torch.randn(2, 2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    return x_t, torch.tensor([3, 90]), make_signals(image)


def make_signals(image, labels=((0, 1), (2, -1)), level=(0.1, 0.8), scale=1) -> Signals:
    return Signals(
        channels={"low_resolution": ChannelSignal(image, scale)},
        vectors={"labels": torch.tensor(labels), "low_resolution": torch.tensor(level)},
    )


def test_output_has_the_shape_of_a_non_square_image_and_starts_at_zero(network, inputs):
    output = network(*inputs)
    assert output.shape == (2, 3, 16, 24)
    assert not output.any()


def test_gradient_reaches_every_parameter(network, inputs, fill_zeros):
    fill_zeros(network)
    x_t, t, signals = inputs
    image = signals.channels["low_resolution"].image
    dropped = make_signals(image, labels=[[-1, -1], [-1, -1]])
    (network(x_t, t, signals) + network(x_t, t, dropped)).square().sum().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_labels_image_and_level_all_matter(network, inputs, fill_zeros):
    fill_zeros(network)
    x_t, t, signals = inputs
    image = signals.channels["low_resolution"].image
    output = network(x_t, t, signals)
    for other in (
        make_signals(image, labels=[[1, 0], [-1, 1]]),
        make_signals(-image),
        make_signals(image, level=(0.8, 0.1)),
    ):
        changed = network(x_t, t, other)
        assert ((output - changed).flatten(1).abs().amax(dim=1) > 1e-4).all()


def test_small_images_are_upscaled_to_the_size_of_the_noisy_one(network, inputs, fill_zeros):
    fill_zeros(network)
    x_t, t, _ = inputs
    small = make_signals(torch.rand(2, 3, 4, 6), scale=4)
    assert network(x_t, t, small).equal(network(x_t, t, small.enlarged()))


@pytest.mark.parametrize(("height", "width"), [(16, 26), (18, 16), (1, 16)])
def test_sizes_that_do_not_fit_are_refused(network, inputs, height, width):
    _, t, signals = inputs
    with pytest.raises(ContractError, match=f"multiples of 4 px .* got {width}x{height}"):
        network(torch.zeros(2, 3, height, width), t, signals)


def test_patches_are_folded_and_unfolded_in_place():
    """A pixel's patch is the same for input and output: a shuffle undoes the unshuffle."""

    class Identity(torch.nn.Module):
        dtype = torch.float32

        def forward(self, sample, t, **_):
            return type("Output", (), {"sample": sample})

    network = StageUNet(Identity(), None, patch_size=4, size_multiple_px=4)
    x_t = torch.arange(2.0 * 3 * 8 * 12).view(2, 3, 8, 12)
    assert network(x_t, torch.zeros(2), Signals()).equal(x_t)


# ---- building -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "side_px", "options", "message"),
    [
        ("unet", 36, {"channels": (8, 8, 8), "patch_size": 2}, "36 px.*= 8"),
        ("unet", 32, {"channels": (8, 12)}, r"^channels must be multiples of 8, got \[8, 12\]"),
        ("unet", 32, {"channels": (8, 8), "attention": (True,)}, r"\(2\), got 1"),
        ("transformer", 36, {"patch_size": 8}, "36 px.*patch_size 8"),
        ("transformer", 32, {"width": 200}, "multiples of 64, or .* 4, got 200"),
        ("transformer", 32, {"fine_width": 100}, "multiples of 64, or .* 4, got 100"),
        ("transformer", 33, {"patch_size": 3}, "must be even, got 3"),
    ],
)
def test_options_that_do_not_divide_are_refused(kind, side_px, options, message):
    shape = NetworkShape(image_channels=3, out_channels=3, size=(side_px, side_px), slots={})
    with pytest.raises(RecipeError, match=message):
        build_network(kind, shape, options)


def test_both_sides_of_rectangular_images_must_divide():
    shape = NetworkShape(image_channels=3, out_channels=3, size=(32, 36), slots={})
    with pytest.raises(RecipeError, match=r"36 px.*patch_size 8"):
        build_network("transformer", shape, {"patch_size": 8})


def test_kinds_that_cannot_be_built_are_refused_with_the_nearest_name():
    with pytest.raises(ContractError, match="unknown network 'unett': did you mean 'unet'"):
        build_network("unett", SHAPE, {})
    with pytest.raises(ContractError, match="unknown network 'plain': known: unet, transformer"):
        build_network("plain", SHAPE, {})


def test_channels_in_are_those_of_all_images():
    assert replace(SHAPE, image_channels=5).in_channels == 8


# ---- whether conditions fit ---------------------------------------------------------------------


def test_a_network_fits_the_slots_that_it_was_built_for(network):
    network.check(3, 3, SLOTS)


@pytest.mark.parametrize(
    ("channels", "out_channels", "slots", "message"),
    [
        (5, 3, {}, "asks for 8 channels in and 3 out, the network has 6 and 3"),
        (3, 6, {}, "asks for 6 channels in and 6 out, the network has 6 and 3"),
        (3, 3, {"edges": Slots(channels=1)}, "asks for 7 channels in and 3 out"),
        (3, 3, {"text": Slots(tokens=768)}, "'text' has tokens of width 768 in the contract and"),
        (
            3,
            3,
            {"labels": Slots(vector=Classes((3, 4)))},
            r"'labels' is .*\[3, 4\].* in the contract and .*\[3, 2\].* in the network's",
        ),
        (3, 3, {"clip": Slots(vector=Dense(8))}, "'clip' is .*'width': 8.* and None in the netw"),
    ],
)
def test_conditions_that_a_network_has_no_slot_for_are_refused(
    network, channels, out_channels, slots, message
):
    with pytest.raises(ContractError, match=message):
        network.check(channels, out_channels, SLOTS | slots)


def test_conditions_that_a_network_was_built_for_must_be_there(network):
    slots = {"low_resolution": SLOTS["low_resolution"]}
    with pytest.raises(ContractError, match=r"'labels' is None in the contract and .*'classes'"):
        network.check(3, 3, slots)


def test_an_encoder_needs_a_condition_that_is_an_image():
    plain = replace(SHAPE, slots={})
    unet = build_network("unet", plain, {"channels": (8, 16), "blocks": 1})
    backbone = build_network(
        "unet", replace(plain, image_channels=7), {"channels": (8, 16), "blocks": 1}
    ).backbone
    network = StageUNet(
        backbone, None, patch_size=1, size_multiple_px=2, encoder=ImageEncoder(channels=4)
    )
    with pytest.raises(ContractError, match="encoder needs a condition that is an image"):
        network.check(3, 3, {})
    unet.check(3, 3, {})


def test_an_encoder_takes_images_of_1_or_3_channels():
    plain = replace(SHAPE, slots={})
    for channels in (1, 3, 5):
        options = {"channels": (8, 16), "blocks": 1}
        backbone = build_network("unet", replace(plain, image_channels=7 + channels), options)
        network = StageUNet(
            backbone.backbone,
            None,
            patch_size=1,
            size_multiple_px=2,
            encoder=ImageEncoder(channels=4),
        )
        slots = {"low_resolution": Slots(channels=channels)}
        if channels == 5:
            with pytest.raises(ContractError, match="1 or 3 channels, but 'low_resolution' has 5"):
                network.check(3, 3, slots)
        else:
            network.check(3, 3, slots)


# ---- parts --------------------------------------------------------------------------------------


def test_a_network_is_put_together_again_from_its_parts(network, inputs, fill_zeros):
    fill_zeros(network)
    config, parts = network.config(), network.components()
    classes = type(network).component_classes(config)
    assert {name: type(part) for name, part in parts.items()} == classes
    assert set(parts) == {network.kind, "embedding"}
    again = type(network).of_components(parts, config)
    assert again(*inputs).equal(network(*inputs))
    assert again.size_multiple_px == 4


def test_attention_is_reported_where_there_is_some(network):
    assert network.has_attention
    plain = build_network("unet", SHAPE, {"channels": (8, 16), "blocks": 1})
    assert not plain.has_attention


def test_more_memory_is_asked_for_larger_images(network):
    assert network.bytes_at_once(64) == 4 * network.bytes_at_once(32)


def test_a_transformer_folds_patches_itself():
    network = build_network("transformer", SHAPE, OPTIONS["transformer"])
    assert isinstance(network, StageTransformer)
    assert (network.patch_size, network.size_multiple_px) == (1, 4)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("unet", {"chanels": (8,)}, "unknown network option 'chanels': did you mean 'channels'"),
        ("transformer", {"heads": 2}, "unknown network option 'heads': did you mean 'head_"),
        ("mlp", {"wdth": 2}, "unknown network option 'wdth': did you mean 'width'"),
        ("unet", [8], r"network_options must be a mapping by name, got \[8\]"),
    ],
)
def test_unknown_options_are_refused_with_the_nearest(kind, options, message):
    with pytest.raises(ContractError, match=message):
        build_network(kind, SHAPE, options)
