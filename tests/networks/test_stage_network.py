import pytest
import torch
from cascade.conditioning.conditions import Conditions

from cascade.errors import ContractError, RecipeError
from cascade.networks.embedding import ConditionEmbedding
from cascade.networks.stage_network import NETWORKS, StageTransformer, StageUNet

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
    embedding = ConditionEmbedding(label_sizes=[3, 2], level=True, dim=16)
    return NETWORKS[request.param].build(
        embedding, in_channels=6, out_channels=3, size_px=32, **OPTIONS[request.param]
    )


@pytest.fixture
def inputs():
    """x_t of 16x24 px, times and conditions of a batch of two."""
    x_t, image = torch.randn(2, 2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    conditions = Conditions(torch.tensor([[0, 1], [2, -1]]), image, torch.tensor([0.1, 0.8]))
    return x_t, torch.tensor([3, 90]), conditions


def test_output_has_the_shape_of_a_non_square_image_and_starts_at_zero(network, inputs):
    output = network(*inputs)
    assert output.shape == (2, 3, 16, 24)
    assert not output.any()


def test_gradient_reaches_every_parameter(network, inputs, fill_zeros):
    fill_zeros(network)
    x_t, t, conditions = inputs
    dropped = conditions.dropped(labels=True)
    (network(x_t, t, conditions) + network(x_t, t, dropped)).square().sum().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_labels_and_augmentation_level_both_matter(network, inputs, fill_zeros):  # trap 15
    fill_zeros(network)
    x_t, t, conditions = inputs
    output = network(x_t, t, conditions)
    for labels, image, level in (
        (conditions.labels.flip(1).clamp(max=1), conditions.image, conditions.level),
        (conditions.labels, -conditions.image, conditions.level),
        (conditions.labels, conditions.image, conditions.level.flip(0)),
    ):
        changed = network(x_t, t, Conditions(labels, image, level))
        assert ((output - changed).flatten(1).abs().amax(dim=1) > 1e-4).all()


@pytest.mark.parametrize(("height", "width"), [(16, 26), (18, 16), (1, 16)])
def test_sizes_that_do_not_fit_are_refused(network, inputs, height, width):  # trap 37
    _, t, conditions = inputs
    with pytest.raises(ContractError, match=f"multiples of 4 px .* got {width}x{height}"):
        network(torch.zeros(2, 3, height, width), t, conditions)


def test_patches_are_folded_and_unfolded_in_place():
    """A pixel's patch is the same for input and output: a shuffle undoes the unshuffle."""

    class Identity(torch.nn.Module):
        dtype = torch.float32

        def forward(self, sample, t, encoder_hidden_states, class_labels):
            return type("Output", (), {"sample": sample})

    network = StageUNet(Identity(), None, patch_size=4, size_multiple_px=4)
    x_t = torch.arange(2.0 * 3 * 8 * 12).view(2, 3, 8, 12)
    assert network(x_t, torch.zeros(2), Conditions()).equal(x_t)


@pytest.mark.parametrize(
    ("network_class", "options", "message"),
    [
        (StageUNet, {"size_px": 36, "channels": (8, 8, 8), "patch_size": 2}, "36 px.*= 8"),
        (StageUNet, {"size_px": 32, "channels": (8, 12)}, r"multiples of 8, got \[8, 12\]"),
        (StageUNet, {"size_px": 32, "channels": (8, 8), "attention": (True,)}, r"\(2\), got 1"),
        (StageTransformer, {"size_px": 36, "patch_size": 8}, "36 px.*patch_size 8"),
        (StageTransformer, {"size_px": 32, "width": 200}, "multiples of 64, got 200"),
        (StageTransformer, {"size_px": 32, "fine_width": 100}, "multiples of 64, got 100"),
        (StageTransformer, {"size_px": 33, "patch_size": 3}, "must be even, got 3"),
    ],
)
def test_recipes_that_do_not_divide_are_refused(network_class, options, message):
    with pytest.raises(RecipeError, match=message):
        network_class.build(None, in_channels=3, out_channels=3, **options)
