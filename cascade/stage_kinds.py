"""The kinds of stages, and a loader for all of them."""

from __future__ import annotations

from pathlib import Path

from cascade.autoencoder_stage import AutoencoderStage
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import WeightsError, nearest
from cascade.saving.stage_folder import CONFIG, read_kind
from cascade.stage import Stage

STAGES: dict[str, type[Stage]] = {kind.kind: kind for kind in (DiffusionStage, AutoencoderStage)}


def load_stage(folder: str | Path) -> Stage:
    """Load a stage of any kind, on the CPU, in float32.

    Raises:
        WeightsError: if the folder is missing, incomplete, damaged, or not a stage.
    """
    kind = read_kind(Path(folder))
    if kind not in STAGES:
        raise WeightsError(
            f"{Path(folder) / CONFIG}: unknown kind of stage {kind!r}: {nearest(kind, STAGES)}"
        )
    return STAGES[kind].from_pretrained(folder)
