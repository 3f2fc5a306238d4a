from __future__ import annotations

import pytest
import torch

from cascade.errors import ContractError
from cascade.sampling import memory
from cascade.sampling.memory import fitting_tile_px, smaller_tiles_if_needed

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.90 GB)"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
    ],
)
def test_tiles_are_halved_until_they_fit(error):
    sides = []

    def sample(tile_px: int) -> str:
        sides.append(tile_px)
        if tile_px > 128:
            raise error
        return "images"

    assert smaller_tiles_if_needed(sample, 512, CPU) == "images"
    assert sides == [512, 256, 128]


def test_what_does_not_fit_at_all_is_one_clear_line():
    def sample(tile_px: int) -> None:
        raise MemoryError

    message = "^out of memory, even with tiles of 64 px; close other programs, or make a smaller"
    with pytest.raises(ContractError, match=message) as error:
        smaller_tiles_if_needed(sample, 512, CPU)
    assert "\n" not in str(error.value)


def test_other_errors_pass_through():
    def sample(tile_px: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        smaller_tiles_if_needed(sample, 512, CPU)


def test_torch_s_own_error_on_the_cpu_is_recognised():
    def sample(tile_px: int) -> int:
        if tile_px == 512:
            torch.empty(2**50)
        return tile_px

    assert smaller_tiles_if_needed(sample, 512, CPU) == 256


def test_the_side_of_tiles_follows_free_memory(monkeypatch):
    def bytes_at_once(side_px: int) -> int:
        return 10 * side_px**2

    for free, side_px in ((2.1 * 10 * 256**2, 256), (2.1 * 10 * 300**2, 256), (0, 64), (1e12, 512)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        assert fitting_tile_px(bytes_at_once, CPU) == side_px
    assert fitting_tile_px(bytes_at_once, CPU, largest_px=48) == 48


def test_a_stage_s_default_follows_its_network_and_the_free_memory(upsampler, monkeypatch):
    assert upsampler.default_tile_px((64, 64)) == 512
    need = upsampler.network.bytes_at_once(256)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2.1 * need)
    assert upsampler.default_tile_px((64, 64)) == 256


def test_canvases_that_a_sampler_remembers_leave_less_for_a_tile(upsampler, monkeypatch):
    size = (2000, 2000)
    free = 2.1 * upsampler.network.bytes_at_once(512) + 4 * 3 * 2000 * 2000
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    assert upsampler.default_tile_px(size) == 512
    many_steps = upsampler.with_sampling(upsampler.sampling.changed(sampler="unipc"))
    assert many_steps.default_tile_px(size) < 512
    assert many_steps.default_tile_px((64, 64)) == 512
    assert many_steps.default_tile_px((20_000, 20_000)) == 512  # those canvases are files


def test_a_stage_with_attention_keeps_to_the_size_that_it_was_trained_on(upsampler):
    upsampler.network.backbone.attention = torch.nn.MultiheadAttention(4, 1)
    assert upsampler.default_tile_px((64, 64)) == 32


def test_free_memory_is_that_of_the_system():
    import psutil

    free = memory.free_bytes(CPU)
    assert 0 < free <= psutil.virtual_memory().total
