from __future__ import annotations

import pytest
import torch
from cascade.restoration.memory import default_tile_px, smaller_tiles_if_needed, tile_bytes

from cascade.errors import ContractError
from cascade.restoration import memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
    ],
)
def test_tiles_are_halved_until_they_fit(upsampler, error):
    tried = []

    def sample(tile_px: int) -> str:
        tried.append(tile_px)
        if tile_px > 128:
            raise error
        return "done"

    assert smaller_tiles_if_needed(upsampler, 512, sample) == "done"
    assert tried == [512, 256, 128]


def test_what_does_not_fit_at_all_is_one_clear_line(upsampler, colouriser):
    def sample(tile_px: int) -> None:
        raise MemoryError

    said = "out of memory, even with tiles of 64 px; close other programs"
    with pytest.raises(ContractError, match=f"{said}, or enlarge by a smaller scale.$"):
        smaller_tiles_if_needed(upsampler, 512, sample)
    with pytest.raises(ContractError, match=f"{said}.$"):
        smaller_tiles_if_needed(colouriser, 512, sample)


def test_other_errors_pass_through(upsampler):
    def sample(tile_px: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        smaller_tiles_if_needed(upsampler, None, sample)


def test_the_default_tile_follows_free_memory(upsampler, monkeypatch):
    assert default_tile_px(upsampler) == 512
    need = tile_bytes(upsampler, 256)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2.1 * need)
    assert default_tile_px(upsampler) == 256
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert default_tile_px(upsampler) == 64


def test_torch_itself_says_so_when_the_cpu_has_too_little(upsampler):
    def sample(tile_px: int) -> int:
        if tile_px == 512:
            torch.empty(2**50)
        return tile_px

    assert smaller_tiles_if_needed(upsampler, 512, sample) == 256
