import pytest
import torch

from cascade.errors import RecipeError
from cascade.networks.convolutional_head import ConvolutionalHead
from cascade.networks.transformer import PixelTransformer, position_embedding


def make_transformer(**options) -> PixelTransformer:
    """Untrained, 6 channels in, 3 out, patches of 4 px, two heads."""
    torch.manual_seed(0)
    return PixelTransformer(
        in_channels=6,
        out_channels=3,
        patch_size=4,
        width=128,
        depth=2,
        fine_width=32,
        fine_depth=1,
        head_channels=4,
        projection_class_embeddings_input_dim=16,
        **options,
    )


@pytest.fixture(params=[0, 2], ids=["plain-head", "head-blocks"])
def transformer(request):
    """With and without blocks in its head."""
    return make_transformer(head_blocks=request.param)


@pytest.fixture
def inputs():
    """Image of 8x20 px, time and condition vector of a batch of two."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 6, 8, 20, generator=generator)
    return image, torch.tensor([3, 90]), torch.randn(2, 16, generator=generator)


def predict(transformer, image, t, vector):
    return transformer(image, t, class_labels=vector).sample


def test_output_has_the_shape_of_a_non_square_image_and_starts_at_zero(transformer, inputs):
    output = predict(transformer, *inputs)
    assert output.shape == (2, 3, 8, 20)
    assert not output.any()


def test_gradient_reaches_every_parameter(transformer, inputs, fill_zeros):
    predict(fill_zeros(transformer), *inputs).square().sum().backward()
    without = [n for n, p in transformer.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_first_step_of_training_moves_the_output(transformer, inputs):
    (predict(transformer, *inputs) - 1).square().sum().backward()
    assert transformer.head.out.weight.grad.any()


def test_every_input_matters_to_every_pixel(transformer, inputs, fill_zeros):
    fill_zeros(transformer)
    image, t, vector = inputs
    output = predict(transformer, image, t, vector)
    other_image = image.clone()
    other_image[:, :, 0, 0] += 1
    for changed in (
        predict(transformer, other_image, t, vector),
        predict(transformer, image, t + 5, vector),
        predict(transformer, image, t, vector.roll(1, dims=1)),
    ):
        assert ((output - changed).abs().amax(dim=1) > 0).all()


def test_images_of_a_batch_do_not_see_each_other(transformer, inputs, fill_zeros):
    fill_zeros(transformer)
    both = predict(transformer, *inputs)
    for i in range(2):
        alone = predict(transformer, *(tensor[i : i + 1] for tensor in inputs))
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_changes_no_gradient(transformer, inputs, fill_zeros):
    fill_zeros(transformer).train()

    def gradients():
        transformer.zero_grad()
        predict(transformer, *inputs).square().sum().backward()
        return [parameter.grad.clone() for parameter in transformer.parameters()]

    plain = gradients()
    transformer.enable_gradient_checkpointing()
    torch.testing.assert_close(gradients(), plain)


def test_positions_differ_and_do_not_depend_on_the_size_of_the_grid():
    small, large = position_embedding(3, 4, 16), position_embedding(5, 7, 16)
    assert small.shape == (1, 12, 16)
    assert torch.cdist(small, small)[0].add(torch.eye(12)).min() > 0.01
    inner = large.view(5, 7, 16)[:3, :4].reshape(1, 12, 16)
    torch.testing.assert_close(small, inner)


def test_cross_attention_is_refused(transformer, inputs):
    image, t, vector = inputs
    with pytest.raises(ValueError, match="no cross-attention"):
        transformer(image, t, encoder_hidden_states=vector)


def test_new_blocks_of_the_head_change_no_output(inputs, fill_zeros):
    plain, detailed = make_transformer(), make_transformer(head_blocks=2)
    fill_zeros(plain)
    new = detailed.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert all(name.startswith("head.details.") for name in new)
    assert predict(detailed, *inputs).equal(predict(plain, *inputs))


def test_blocks_of_the_head_see_further_and_the_condition(inputs, fill_zeros):
    image, _, _ = inputs
    generator = torch.Generator().manual_seed(2)
    head = ConvolutionalHead(6, 4, 3, blocks=2, condition_width=8)
    fill_zeros(head)
    pixels, condition = (torch.randn(2, *s, generator=generator) for s in ((4, 8, 20), (8,)))
    output = head(image, pixels, condition)
    assert not output.equal(head(image, pixels, condition + 1))
    pixels[..., 0] += 1
    changed = (head(image, pixels, condition) - output).abs().amax(dim=(0, 1, 2)) > 0
    assert changed.nonzero().max() >= 10  # two 3x3 convolutions alone reach 2 columns


@pytest.mark.parametrize("width", [34, 96])
def test_a_width_without_whole_heads_is_refused_with_the_rule(width):
    with pytest.raises(RecipeError, match="multiples of 64, or below it multiples of 4, got"):
        PixelTransformer(width=width, depth=1)
