from __future__ import annotations

import numpy as np
import pytest
import torch

from cascade import mapped_arrays
from cascade.conditioning.noised_image import pad_to
from cascade.diffusion.noise import SeededNoise
from cascade.errors import OutputError
from cascade.sampling.canvas import CanvasNoise, new_canvas


def test_a_large_canvas_lies_on_disk_and_holds_the_same(monkeypatch, tmp_path):
    in_memory = new_canvas((2, 3, 5))
    monkeypatch.setattr(mapped_arrays, "MOST_IN_MEMORY_BYTES", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    on_disk = new_canvas((2, 3, 5))
    for each in (in_memory, on_disk):
        SeededNoise([1, 2]).fill_normal(each)
    assert torch.equal(in_memory, on_disk)
    assert torch.equal(on_disk, SeededNoise([1, 2]).normal(3, 5))
    assert not list(tmp_path.iterdir())  # nothing is left behind, even if the process is killed


@pytest.mark.parametrize("rest", [0, 5, 16, 21])
def test_noise_that_is_drawn_in_parts_is_that_of_the_whole(monkeypatch, rest):
    expected = SeededNoise([1, 2]).normal(1, 1, 3 * 64 + rest)
    monkeypatch.setattr("cascade.diffusion.noise.NUMBERS_AT_ONCE", 64)
    noise = SeededNoise([1, 2])
    assert torch.equal(noise.normal(1, 1, 3 * 64 + rest), expected)


def test_released_pages_come_back_from_the_file(monkeypatch):
    monkeypatch.setattr(mapped_arrays, "MOST_IN_MEMORY_BYTES", 100)
    values = mapped_arrays.new_array((50, 40), "int16")
    values[:] = np.arange(2000).reshape(50, 40)
    mapped_arrays.release_pages()
    assert np.array_equal(values.ravel(), np.arange(2000))


@pytest.mark.parametrize("beside", [0, 3])
def test_huge_images_are_padded_as_others_are(monkeypatch, beside):
    image = torch.rand(1, 2, 9, 7)
    expected = pad_to(image, (12, 7 + beside), 1)
    monkeypatch.setattr(mapped_arrays, "MOST_IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(mapped_arrays, "NUMBERS_AT_ONCE", 30)
    assert torch.equal(pad_to(image, (12, 7 + beside), 1), expected)


def test_a_full_disk_is_one_clear_line():
    with pytest.raises(
        OutputError, match=r"needs .* GiB of temporary space in .*; free some"
    ) as error:
        new_canvas((2**44,))
    assert "\n" not in str(error.value)


def test_rows_are_those_of_noise_for_the_whole_canvas():
    whole = SeededNoise([7, 8])
    fresh = CanvasNoise(SeededNoise([7, 8]), (2, 3, 8, 6))
    for _ in range(2):
        fresh.new_step()
        expected = whole.normal(3, 8, 6)
        for rows in (slice(0, 5), slice(5, 8)):
            fresh.rows = rows
            assert torch.equal(fresh.normal(3, 1, 1), expected[..., rows, :])
        fresh.rows = slice(None)
        assert torch.equal(fresh.normal(3, 8, 6), expected)


def test_a_new_step_asks_for_the_whole_canvas_again():
    fresh = CanvasNoise(SeededNoise([7]), (1, 3, 8, 6))
    fresh.rows = slice(2, 4)
    fresh.new_step()
    assert fresh.normal(3, 8, 6).shape == (1, 3, 8, 6)


def test_the_streams_go_on_from_step_to_step_and_stand_still_where_nothing_is_drawn():
    noise = SeededNoise([7])
    fresh = CanvasNoise(noise, (1, 1, 2, 2))
    fresh.new_step()
    fresh.new_step()
    assert torch.equal(fresh.normal(1, 2, 2), SeededNoise([7]).normal(1, 2, 2))
    assert fresh.generators is noise.generators
