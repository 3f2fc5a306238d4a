"""How large a tile may be in the memory that there is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from cascade.devices import is_out_of_memory
from cascade.errors import ContractError
from cascade.stage import Stage

TILE_PX = 512
SMALLEST_TILE_PX = 64
MAPS_AT_ONCE = 28  # feature maps of the finest level that are in memory together; 12 to 26 measured
MOST_OF_MEMORY = 0.5
Result = TypeVar("Result")
logger = logging.getLogger(__name__)


def smaller_tiles_if_needed(
    stage: Stage, tile_px: int | None, sample: Callable[[int], Result]
) -> Result:
    """Sample with tiles that fit into memory; after a failure again with half the side.

    Args:
        stage: that samples.
        tile_px: the side that was asked for, or None for the default.
        sample: with tiles of the side that it is given.

    Raises:
        ContractError: if not even the smallest tiles fit.
    """
    side = default_tile_px(stage) if tile_px is None else tile_px
    while True:
        try:
            return sample(side)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        if side // 2 < SMALLEST_TILE_PX:
            less = ", or enlarge by a smaller scale" if stage.contract.takes == "low_res" else ""
            raise ContractError(
                f"out of memory, even with tiles of {side} px; close other programs{less}."
            )
        side //= 2
        logger.warning("out of memory; trying again with tiles of %d px", side)
        if stage.device.type == "cuda":
            torch.cuda.empty_cache()


def default_tile_px(stage: Stage) -> int:
    """The side of tiles unless told otherwise: 512, halved until one fits into free memory.

    A network with attention keeps to the size that it was trained for.
    """
    side = TILE_PX if not stage.network.has_attention else stage.contract.size_px
    free = MOST_OF_MEMORY * free_bytes(stage.device)
    while side > SMALLEST_TILE_PX and tile_bytes(stage, side) > free:
        side //= 2
    return side


def tile_bytes(stage: Stage, tile_px: int) -> int:
    """An estimate of what the network needs while it works on one tile."""
    network = stage.network
    seen = 0 if network.encoder is None else network.encoder.numbers_at_once(tile_px)
    return 4 * max(seen, MAPS_AT_ONCE * network.finest_map_numbers(tile_px))


def free_bytes(device: torch.device) -> int:
    """Memory that is free where the network works."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available
