"""Deep features of a U-Net that neighbouring steps share (DeepCache, arXiv 2312.00858).

From one step to the next, the coarse levels of a U-Net change little. A step may therefore run only
the finest level, on what the coarse levels put out in an earlier step.

Shapes: B batch, C channels, H and W pixels, E embedding.
"""

from __future__ import annotations

from diffusers import UNet2DConditionModel
from diffusers.models.unets.unet_2d_blocks import (
    AttnDownBlock2D,
    AttnUpBlock2D,
    DownBlock2D,
    UNetMidBlock2D,
    UpBlock2D,
)
from torch import Tensor

BLOCKS = (AttnDownBlock2D, DownBlock2D, AttnUpBlock2D, UpBlock2D)


def can_reuse(unet: UNet2DConditionModel) -> bool:
    """Whether a U-Net has coarse levels, and no parts that `reusing` leaves out."""
    blocks = (*unet.down_blocks, *unet.up_blocks)
    config = unet.config
    return (
        len(unet.down_blocks) > 1
        and all(type(each) in BLOCKS for each in blocks)
        and (unet.mid_block is None or type(unet.mid_block) is UNetMidBlock2D)
        and config.addition_embed_type is None
        and config.time_embedding_act_fn is None
        and not config.class_embeddings_concat
        and not config.center_input_sample
    )


def reusing(
    unet: UNet2DConditionModel,
    sample: Tensor,
    t: Tensor,
    class_labels: Tensor | None,
    deep: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run a U-Net in full, or only its finest level on deep features of an earlier step.

    Args:
        unet: a U-Net for which `can_reuse` is true.
        sample: (B, C, H, W) noisy images.
        t: (B,) training timesteps.
        class_labels: (B, E) condition vector; None if the U-Net takes none.
        deep: (B, C', H, W) deep features of an earlier step; None to run in full.

    Returns:
        The output (B, P, H, W), and the deep features that it was computed from.
    """
    embedding = unet.time_embedding(unet.get_time_embed(sample=sample, timestep=t))
    if unet.class_embedding is not None:
        embedding = embedding + unet.get_class_embed(sample=sample, class_labels=class_labels)
    features = unet.conv_in(sample)
    finest = unet.up_blocks[-1]
    if deep is None:
        deep, skips = _coarse_levels(unet, features, embedding)
    else:
        _, further = unet.down_blocks[0](features, embedding)
        skips = (features, *further)[: len(finest.resnets)]
    features = finest(deep, skips, embedding)
    if unet.conv_norm_out is not None:
        features = unet.conv_act(unet.conv_norm_out(features))
    return unet.conv_out(features), deep


def _coarse_levels(
    unet: UNet2DConditionModel, features: Tensor, embedding: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What the finest block of the decoder receives from below and from the side."""
    skips = (features,)
    for block in unet.down_blocks:
        features, further = block(features, embedding)
        skips += further
    if unet.mid_block is not None:
        features = unet.mid_block(features, embedding)
    for block in unet.up_blocks[:-1]:
        count = len(block.resnets)
        features = block(features, skips[-count:], embedding)
        skips = skips[:-count]
    return features, skips
