"""How large tiles may be in the free memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from cascade.devices import free_memory, is_out_of_memory
from cascade.errors import ContractError

TILE_PX = 512
SMALLEST_TILE_PX = 64
MOST_OF_MEMORY = 0.5
Result = TypeVar("Result")
logger = logging.getLogger(__name__)


def smaller_tiles_if_needed(
    sample: Callable[[int], Result], tile_px: int, device: torch.device
) -> Result:
    """Sample with tiles that fit into memory: after each failure, try again with half the side.

    Args:
        sample: samples with tiles of the side in pixels that it is called with.
        tile_px: side of the first try.
        device: device of the network.

    Raises:
        ContractError: if not even the smallest tiles fit.
    """
    while True:
        try:
            return sample(tile_px)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        if tile_px // 2 < SMALLEST_TILE_PX:
            raise ContractError(
                f"out of memory, even with tiles of {tile_px} px; close other programs, or make "
                "a smaller image."
            )
        tile_px //= 2
        logger.warning("out of memory; trying again with tiles of %d px", tile_px)
        free_memory(device)


def fitting_tile_px(
    bytes_at_once: Callable[[int], int],
    device: torch.device,
    *,
    largest_px: int = TILE_PX,
    held_bytes: int = 0,
) -> int:
    """The side of tiles in pixels: `largest_px`, halved until a tile fits into free memory.

    Args:
        bytes_at_once: memory in bytes that the network needs for a tile of a side in pixels.
        device: device of the network.
        largest_px: largest side in pixels.
        held_bytes: memory in bytes that will be in use besides the network's.
    """
    side_px, free = largest_px, MOST_OF_MEMORY * (free_bytes(device) - held_bytes)
    while side_px > SMALLEST_TILE_PX and bytes_at_once(side_px) > free:
        side_px //= 2
    return side_px


def free_bytes(device: torch.device) -> int:
    """Free memory of a device in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available
