"""Facts about tokens that hold for every backbone: masks, padding, batches, and a start at zero."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cascade.conditioning.signals import Signals, TokenSignal
from cascade.conditioning.slots import Classes, Dense, Slots
from cascade.errors import ContractError, RecipeError
from cascade.networks.backbone_network import NetworkShape
from cascade.networks.backbones import StageUNet, build_network
from cascade.saving.components import load_component, save_component

WIDTH, POOLED = 6, 5
LABELS = {"labels": Slots(vector=Classes((3,)))}
TEXT = {"text": Slots(vector=Dense(POOLED), tokens=WIDTH)}
SHAPE = NetworkShape(
    image_channels=3, out_channels=3, size=(16, 16), slots=LABELS | TEXT, embedding_dim=16
)
TRANSFORMER = {
    "patch_size": 4,
    "width": 32,
    "depth": 2,
    "fine_width": 16,
    "fine_depth": 1,
    "head_channels": 4,
}
UNET = {"channels": (8, 16), "blocks": 1}
NETWORKS = {
    "unet": ("unet", UNET),
    "unet-self-attention": ("unet", UNET | {"attention": (False, True)}),
    "transformer": ("transformer", TRANSFORMER),
}
T = torch.tensor([3, 90])
LABEL = torch.tensor([[1], [2]])


def make_network(name: str, shape: NetworkShape = SHAPE):
    torch.manual_seed(0)
    kind, options = NETWORKS[name]
    return build_network(kind, shape, options)


@pytest.fixture(params=NETWORKS)
def new(request):
    """Untrained network of 16 px with labels and text."""
    return make_network(request.param)


@pytest.fixture
def network(new, fill_zeros):
    """With random weights everywhere."""
    return fill_zeros(new)


@pytest.fixture(scope="module")
def x_t():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def make_signals(lengths=(3, 1), count: int = 4, padding: float = 0.0) -> Signals:
    """Tokens of two texts, `count` with the padding."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(2, 4, WIDTH, generator=generator)
    tokens = torch.cat([tokens, torch.zeros(2, max(count - 4, 0), WIDTH)], dim=1)[:, :count]
    mask = torch.arange(count) < torch.tensor(lengths)[:, None]
    tokens = torch.where(mask[..., None], tokens, padding)
    return Signals(
        vectors={"labels": LABEL, "text": torch.randn(2, POOLED, generator=generator)},
        tokens={"text": TokenSignal(tokens, mask)},
    )


def assert_close(output, expected, tolerance: float = 1e-6):
    atol = tolerance * float(expected.detach().abs().max())
    torch.testing.assert_close(output, expected, rtol=0, atol=atol)


def test_tokens_and_their_masks_matter(network, x_t):
    output = network(x_t, T, make_signals())
    for signals in (make_signals(lengths=(2, 2)), make_signals(lengths=(0, 0))):
        changed = network(x_t, T, signals)
        assert ((output - changed).flatten(1).abs().amax(dim=1) > 1e-4).all()


@pytest.mark.parametrize("padding", [7.0, float("nan"), float("inf")])
def test_tokens_behind_the_mask_may_be_anything(network, x_t, padding):
    output = network(x_t, T, make_signals(padding=padding))
    assert_close(output, network(x_t, T, make_signals()))
    output.square().sum().backward()
    assert all(each.grad.isfinite().all() for each in network.parameters())


def test_the_length_of_the_padding_changes_nothing(network, x_t):
    expected = network(x_t, T, make_signals(count=3))
    assert_close(network(x_t, T, make_signals(count=9)), expected)


def test_batch_mates_change_nothing(network, x_t):
    signals = make_signals()
    both = network(x_t, T, signals)
    for place in range(2):
        alone = signals.map(lambda each: each[place : place + 1])  # noqa: B023
        output = network(x_t[place : place + 1], T[place : place + 1], alone)
        assert_close(output, both[place : place + 1])


def test_halves_of_guidance_are_what_each_gives_alone(network, x_t):
    signals, absent = make_signals(), make_signals(lengths=(0, 0))
    both = network(torch.cat([x_t, x_t]), torch.cat([T, T]), signals.concatenate(absent))
    assert_close(both, torch.cat([network(x_t, T, signals), network(x_t, T, absent)]))


def test_images_without_tokens_have_finite_outputs_and_gradients(network, x_t):
    output = network(x_t, T, make_signals(lengths=(0, 0)))
    output.square().sum().backward()
    assert output.isfinite().all()
    assert all(each.grad.isfinite().all() for each in network.parameters())


def test_gradient_reaches_the_tokens_and_every_parameter(network, x_t):
    """A block that tokens do not reach would leave its keys without a gradient."""
    signals = make_signals()
    tokens = signals.tokens["text"].tokens.requires_grad_()
    network(x_t, T, signals).square().sum().backward()
    assert tokens.grad is not None
    assert ((tokens.grad != 0).any(dim=-1) == signals.tokens["text"].mask).all()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("name", ["unet", "transformer"])
@pytest.mark.parametrize("slots", [LABELS, {}], ids=["labels", "no-vector"])
def test_the_output_starts_as_that_without_tokens_bit_for_bit(name, slots, x_t, fill_zeros):
    old = fill_zeros(make_network(name, replace(SHAPE, slots=slots)))
    new = make_network(name, replace(SHAPE, slots=slots | TEXT))
    missing, unexpected = new.load_state_dict(old.state_dict(), strict=False)
    assert unexpected == []
    assert sorted(missing) == sorted(n for names in new.token_weights.values() for n in names)
    signals = make_signals()
    assert new(x_t, T, signals).equal(old(x_t, T, replace(signals, tokens={})))


def test_the_token_projection_learns_after_one_step(new, x_t):
    optimiser = torch.optim.SGD(new.parameters(), lr=0.1)
    for _ in range(3):  # the last layer is new as well: it moves first, then the cross-attention
        optimiser.zero_grad()
        (new(x_t, T, make_signals()) - x_t).square().mean().backward()
        optimiser.step()
    assert new.tokens.parts["text"][1].weight.grad.any()


def test_outputs_in_bfloat16_are_close_and_masked(network, x_t):
    expected = network(x_t, T, make_signals())
    with torch.autocast("cpu", torch.bfloat16):
        output, padded = (network(x_t, T, make_signals(padding=p)) for p in (0.0, float("nan")))
    assert output.equal(padded)
    assert (output - expected).norm() < 0.05 * expected.norm()


def test_gradient_checkpointing_changes_no_gradient(network, x_t):
    network.train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            network.trunk.enable_gradient_checkpointing()
        network.zero_grad()
        network(x_t, T, make_signals()).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.slow  # the compiler takes seconds to start
def test_a_compiled_trunk_has_the_same_output(x_t, fill_zeros):
    options = TRANSFORMER | {"depth": 1, "fine_depth": 0}
    network = fill_zeros(build_network("transformer", SHAPE, options))
    expected = network(x_t, T, make_signals())
    network.trunk.compile(backend="eager")
    torch.testing.assert_close(network(x_t, T, make_signals()), expected)


def test_a_saved_network_has_the_same_output(network, x_t, tmp_path):
    config = network.config()
    for name, part in network.components().items():
        save_component(part, tmp_path / name)
    classes = type(network).component_classes(config)
    assert set(classes) == {network.kind, "embedding", "tokens"}
    parts = {name: load_component(each, tmp_path / name) for name, each in classes.items()}
    again = type(network).of_components(parts, config)
    again.check(3, 3, SHAPE.slots)
    assert again(x_t, T, make_signals()).equal(network(x_t, T, make_signals()))


# ---- where a network attends --------------------------------------------------------------------


def test_heads_of_a_unet_have_64_channels():
    shape = replace(SHAPE, size=(8, 8))
    unet = build_network("unet", shape, {"channels": (64, 128), "blocks": 1}).backbone
    levels = [each.attentions[0].transformer_blocks[0].attn2 for each in unet.down_blocks[1:]]
    assert [(each.heads, each.to_q.out_features) for each in levels] == [(2, 128)]


def test_a_unet_without_self_attention_keeps_pixels_apart():
    plain, own = make_network("unet"), make_network("unet-self-attention")
    assert isinstance(plain, StageUNet)
    assert not plain.has_attention
    assert own.has_attention
    assert plain.backbone.config["down_block_types"] == ("DownBlock2D", "CrossAttnDownBlock2D")
    assert plain.backbone.config["up_block_types"] == ("CrossAttnUpBlock2D", "UpBlock2D")


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_last_block_of_a_transformer_attends_to_tokens(depth):
    network = build_network("transformer", SHAPE, TRANSFORMER | {"depth": depth})
    attends = [each.cross is not None for each in network.backbone.blocks.blocks]
    assert attends == [True, False, True][-depth:]


def test_a_transformer_without_blocks_takes_no_tokens():
    with pytest.raises(RecipeError, match="tokens need at least one block"):
        build_network("transformer", SHAPE, TRANSFORMER | {"depth": 0})


# ---- one vector as several tokens ---------------------------------------------------------------

SPREAD = {"text": replace(TEXT["text"], spread=4)}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_token_may_become_several(name, x_t, fill_zeros, tmp_path):
    network = fill_zeros(make_network(name, replace(SHAPE, slots=LABELS | SPREAD)))
    signals = make_signals(lengths=(3, 1))
    tokens, mask = network.tokens(signals.tokens)
    assert tokens.shape == (2, 1 + 4 * 4, network.tokens.config["dim"])
    assert mask.tolist() == [[True] * 13 + [False] * 4, [True] * 5 + [False] * 12]
    first = tokens[0, 1:5]
    assert torch.cdist(first, first)[~torch.eye(4, dtype=torch.bool)].min() > 0.1
    output = network(x_t, T, signals)
    assert_close(
        network(x_t, T, make_signals(lengths=(3, 1), count=9, padding=float("nan"))), output
    )
    for part, each in network.components().items():
        save_component(each, tmp_path / part)
    classes = type(network).component_classes(network.config())
    parts = {part: load_component(each, tmp_path / part) for part, each in classes.items()}
    again = type(network).of_components(parts, network.config())
    again.check(3, 3, LABELS | SPREAD)
    assert again(x_t, T, signals).equal(output)
    with pytest.raises(
        ContractError, match="'text' becomes 1 in the contract and 4 in the network"
    ):
        again.check(3, 3, SHAPE.slots)
