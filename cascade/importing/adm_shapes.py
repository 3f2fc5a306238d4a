"""What the names and shapes of a guided-diffusion checkpoint say about its network.

Numbers of heads, the order of attention, the size of images and the noise schedule leave no trace
in them. For the published checkpoints, they follow from the shapes; see their README.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cascade.errors import WeightsError
from cascade.importing.layout import NoiseScheduleName
from cascade.networks.adm_layers import AttentionOrder

FIRST = "input_blocks.0.0.weight"
LABELS = "label_emb.weight"
RATE = re.compile(r"0?\.\d+")  # of an average, in the name of its weights


@dataclass(frozen=True)
class Published:
    """What the shapes of a published checkpoint do not say.

    Attributes:
        size_px: side of the images in pixels.
        low_size_px: side of an upsampler's low-resolution images; None for a base model.
        heads: number of heads; None if each has 64 channels.
        attention_order: order of queries, keys and values.
        noise_schedule: kind of the noise schedule.
        train_steps: number of timesteps in training.
        rescale_timesteps: whether the network takes timesteps as if there were 1000.
    """

    size_px: int
    low_size_px: int | None = None
    heads: int | None = None
    attention_order: AttentionOrder = "legacy"
    noise_schedule: NoiseScheduleName = "linear"
    train_steps: int = 1000
    rescale_timesteps: bool = False


# By model_channels, layers_per_block, and the channels of each level over model_channels.
BASES = {
    (192, 3, (1, 2, 3, 4)): Published(64, attention_order="new", noise_schedule="cosine"),
    (256, 2, (1, 1, 2, 3, 4)): Published(128, heads=4),
    (256, 2, (1, 1, 2, 2, 4, 4)): Published(256),
    (256, 2, (0.5, 1, 1, 2, 2, 4, 4)): Published(512),
}
_COSINE: Any = {"heads": 4, "noise_schedule": "cosine", "train_steps": 4000}
IMPROVED_BASES = {  # of improved diffusion, in which convolutions change the resolution
    (128, 3, (1, 2, 3, 4)): Published(64, **_COSINE, rescale_timesteps=True),
    (128, 3, (1, 2, 2, 2)): Published(32, **_COSINE, rescale_timesteps=True),
    (192, 3, (1, 2, 3, 4)): Published(64, **_COSINE),
    (128, 2, (1, 1, 2, 2, 4, 4)): Published(256, heads=1),
}
IMPROVED_UPSAMPLERS = {
    (192, 2, (1, 1, 2, 2, 4, 4), 2): Published(256, 64, heads=4, train_steps=4000),
}
UPSAMPLERS = {  # by the number of levels with attention too
    (192, 2, (1, 1, 2, 2, 4, 4), 3): Published(256, 64, heads=4),
    (192, 2, (1, 1, 2, 2, 4, 4), 2): Published(512, 128),
}


def read_shapes(weights: Mapping[str, Tensor], source: Path) -> dict[str, Any]:
    """The arguments of `ADMUNet` that names and shapes show: all but heads and order.

    Args:
        weights: the tensors by their names in guided diffusion.
        source: the file, for messages.

    Raises:
        WeightsError: if they are not those of such a network.
    """
    try:
        return _shapes(weights)
    except (KeyError, IndexError, ZeroDivisionError, ValueError) as error:
        raise WeightsError(
            f"{source} looks like guided diffusion, but lacks {first_word(error)}; is it a "
            "classifier, or damaged?"
        ) from error


def first_word(error: BaseException) -> str:
    """The name that a lookup missed."""
    return str(error.args[0]) if isinstance(error, KeyError) else "blocks of a U-Net"


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    in_channels = weights[FIRST].shape[1]
    blocks = len({name.split(".")[1] for name in weights if name.startswith("input_blocks.")})
    layers = _layers_per_block(weights, blocks)
    widths, attention = [], []
    for level in range(blocks // (layers + 1)):
        block = f"input_blocks.{level * (layers + 1) + 1}"
        widths.append(weights[f"{block}.0.out_layers.3.weight"].shape[0])
        attention.append(f"{block}.1.qkv.weight" in weights)
    emb_rows = weights["input_blocks.1.0.emb_layers.1.weight"].shape[0]
    return {
        "in_channels": in_channels,
        "out_channels": weights["out.2.weight"].shape[0],
        "model_channels": weights["time_embed.0.weight"].shape[1],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "attention": attention,
        "scale_shift": emb_rows == 2 * widths[0],
        "residual_resampling": not any(name.endswith(".0.op.weight") for name in weights),
    }


def _layers_per_block(weights: Mapping[str, Tensor], blocks: int) -> int:
    """The residual blocks of a level: its output blocks end where one changes the resolution."""
    for block in range(blocks):
        names = [name for name in weights if name.startswith(f"output_blocks.{block}.")]
        if not names:
            raise KeyError(f"output_blocks.{block}")
        kinds = [name.split(".", 3)[2:] for name in names]
        ends = any(n != "0" and (rest.startswith(("in_layers", "conv"))) for n, rest in kinds)
        if ends:
            return block
    return blocks - 1  # a single level


def find_published(shapes: Mapping[str, Any], *, is_upsampler: bool) -> Published | None:
    """Find the facts about the published checkpoint with these shapes; None if there is none."""
    model = shapes["model_channels"]
    widths = tuple(width / model for width in shapes["block_out_channels"])
    key = (model, shapes["layers_per_block"], widths)
    is_improved = not shapes["residual_resampling"]
    if is_upsampler:
        upsamplers = IMPROVED_UPSAMPLERS if is_improved else UPSAMPLERS
        return upsamplers.get((*key, sum(shapes["attention"])))
    return (IMPROVED_BASES if is_improved else BASES).get(key)


def choose_prefix(names: Sequence[str]) -> tuple[str, list[str]]:
    """The prefix of the network's names, and the prefixes of other copies that are passed over.

    Averaged weights (with `ema` in their prefix) are preferred to those that were trained, and of
    several averages the longest, such as `ema_0.9999` to `ema_0.999`.

    Returns:
        The prefix, such as `ema.`, which may be empty, and the others.
    """
    prefixes = sorted(name.removesuffix(FIRST) for name in names if name.endswith(FIRST))
    averaged = [each for each in prefixes if "ema" in each.lower()]
    averaged.sort(key=lambda each: -max(map(float, RATE.findall(each)), default=0.0))
    chosen = (averaged or prefixes)[0]
    return chosen, [each for each in prefixes if each != chosen]
