import pytest
import torch
import torch.nn.functional as F

from cascade.conditioning.blur import blur


@pytest.fixture
def images():
    """Four images of 16 px in [-1, 1]."""
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_blur_is_a_gaussian_of_the_drawn_width(images):
    uniform = torch.tensor([[0.0, 0.0], [0.0, 0.5], [0.0, 1.0], [0.9, 0.5]])
    blurred = blur(images, uniform, probability=0.5)
    for i, sigma in enumerate((0.4, 0.5, 0.6)):
        line = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0]) ** 2) / (2 * sigma**2))
        kernel = torch.outer(line, line) / line.sum() ** 2
        expected = F.conv2d(images[i][:, None], kernel[None, None])  # without the border
        torch.testing.assert_close(blurred[i][:, None, 1:-1, 1:-1], expected, rtol=0, atol=1e-5)
    assert blurred[3].equal(images[3])


@pytest.mark.parametrize(("probability", "count"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_images_below_the_probability_are_blurred(images, probability, count):
    uniform = torch.tensor([[0.0, 0.5], [0.3, 0.5], [0.6, 0.5], [0.99, 0.5]])
    blurred = blur(images, uniform, probability)
    assert sum(not a.equal(b) for a, b in zip(blurred, images, strict=True)) == count
