from __future__ import annotations

import pytest
import torch
from cascade.restoration.canvas import NoiseRows, new_canvas

from cascade.diffusion.noise import SeededNoise
from cascade.errors import OutputError
from cascade.restoration import canvas


def test_a_large_canvas_lies_on_disk_and_holds_the_same(monkeypatch, tmp_path):
    in_memory = new_canvas((2, 3, 5))
    monkeypatch.setattr(canvas, "MOST_IN_MEMORY_BYTES", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    on_disk = new_canvas((2, 3, 5))
    for each in (in_memory, on_disk):
        SeededNoise([1, 2]).fill_normal(each)
    assert torch.equal(in_memory, on_disk)
    assert torch.equal(on_disk, SeededNoise([1, 2]).normal(3, 5))
    assert not list(tmp_path.iterdir())  # nothing is left behind, even by a kill


def test_a_disk_without_room_is_one_clear_line():
    with pytest.raises(OutputError, match=r"needs .* GiB in .* while it is worked on"):
        new_canvas((2**44,))


def test_rows_are_those_of_noise_for_the_whole_canvas():
    whole = SeededNoise([7])
    rows = NoiseRows(SeededNoise([7]), (1, 3, 8, 6))
    for _ in range(2):
        rows.new_step()
        wanted = whole.normal(3, 8, 6)
        for part in (slice(0, 5), slice(5, 8)):
            rows.rows = part
            assert torch.equal(rows.normal(3, 1, 1), wanted[..., part, :])
