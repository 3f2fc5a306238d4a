"""Finds weights of other projects, recognises their layout and makes a stage of them."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from cascade.diffusion_stage import DiffusionStage
from cascade.errors import WeightsError, first_line
from cascade.importing.deepfloyd import DeepFloydLayout
from cascade.importing.guided_diffusion import GuidedDiffusionLayout
from cascade.importing.layout import ImportOptions, Layout
from cascade.importing.unet_2d import UNet2DLayout
from cascade.importing.weight_files import SUFFIXES

LAYOUTS: tuple[Layout, ...] = (UNet2DLayout(), DeepFloydLayout(), GuidedDiffusionLayout())
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NEEDED: dict[str, Any] = {  # of a repository: patterns, whose * also stands for slashes
    "allow_patterns": [
        "model_index.json",
        "config.json",
        "scheduler_config.json",
        "diffusion_pytorch_model*",
        "unet/*",
        "scheduler/*",
    ],
    "ignore_patterns": ["*.bin", "*.msgpack", "*.fp16.*", "*.bf16.*", "*non_ema*"],
}
logger = logging.getLogger(__name__)


def import_stage(source: str | Path, **options: Any) -> DiffusionStage:
    """Make a stage of weights that another project trained.

    Args:
        source: a folder or a file, or a name on the Hub such as `google/ddpm-celebahq-256`:
            pipelines of diffusers with a `UNet2DModel`, checkpoints of guided diffusion, and
            U-Nets of DeepFloyd IF in the layout of diffusers.
        options: what the weights do not say; see `ImportOptions`.

    Returns:
        The stage, on the CPU, in float32. The log says what was assumed and what was left out.

    Raises:
        CascadeError: if the source is missing, has an unknown layout, or an option does not fit.
    """
    settings = ImportOptions.of(options)
    place = _find(str(source))
    layout = _layout_of(place)
    settings.check_only(layout.options, layout.name)
    imported = layout.read(place, settings)
    for remark in imported.remarks:
        logger.info("%s: %s.", source, remark)
    return imported.stage


def _layout_of(place: Path) -> Layout:
    layout = next((each for each in LAYOUTS if each.fits(place)), None)
    if layout is None:
        raise WeightsError(
            f"{place} has an unknown layout; known are {', '.join(each.name for each in LAYOUTS)} "
            f"({', '.join(SUFFIXES)})."
        )
    return layout


def _find(source: str) -> Path:
    """The file or folder of a source, downloading it from the Hub if necessary."""
    place = Path(source).expanduser()
    if place.exists():
        return place
    if place.suffix in SUFFIXES or not HUB_NAME.fullmatch(source):
        raise WeightsError(f"no weights at {source}: neither a file, a folder nor a Hub name.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, **NEEDED))
    except Exception as error:  # the Hub raises many kinds, from bad names to no network
        raise WeightsError(
            f"{source!r} is neither a file or folder nor available on the Hub "
            f"({first_line(error)})."
        ) from error
