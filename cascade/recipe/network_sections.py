"""The sections `network` of a recipe, one per kind of network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cascade.recipe.section import Section
from cascade.recipe.values import Whole


class UNetSection(Section):
    """diffusers' U-Net.

    Attributes:
        kind: names the network.
        patch_size: side of the square of pixels that is folded into one position (pixel unshuffle).
            4 does a sixteenth of the work.
        channels: channels of each resolution, finest first; multiples of 8. Attention needs
            multiples of 64 to use heads of 64 channels.
        blocks: residual blocks per resolution.
        attention: one `true` or `false` per resolution, for self-attention; None for none. A
            network without self-attention handles any size. Text is attended to at these
            resolutions; if there are none, at the coarsest one.
        encoder_channels: channels of features from a frozen image classifier, EfficientNet-Lite0,
            for stages with an image condition; 0 goes without. Its weights are saved with the stage
            and never trained.
        gated: whether the noisy image, times a gate that the network predicts for each pixel, is
            added to its output. Useful with `patch_size`: noise in a flat area is then kept or
            removed by one number, and need not pass through the channels.
    """

    kind: Literal["unet"]
    patch_size: Whole = Field(default=1, gt=0)
    channels: list[Annotated[Whole, Field(gt=0)]] = Field(default=[64, 128, 256], min_length=1)
    blocks: Whole = Field(default=2, gt=0, le=100)
    attention: list[bool] | None = None
    encoder_channels: Whole = Field(default=0, ge=0, le=10_000)
    gated: bool = False


class TransformerSection(Section):
    """Our pixel transformer.

    Attributes:
        kind: names the network.
        patch_size: side of a patch in pixels; even. Image sides must be multiples of it.
        width: channels of a patch's token; a multiple of 64, or below it of 4.
        depth: blocks on patches. Every second one attends to text, the last one included.
        fine_width: channels of the token of a fine patch, which has half the side; as `width`.
        fine_depth: blocks on fine patches, before and again after the others.
        head_channels: channels per pixel in the convolutional head.
        head_blocks: residual blocks of the head, which add details at half the resolution.
    """

    kind: Literal["transformer"]
    patch_size: Whole = Field(default=8, gt=0)
    width: Whole = Field(default=256, gt=0)
    depth: Whole = Field(default=8, gt=0, le=1000)
    fine_width: Whole = Field(default=128, gt=0)
    fine_depth: Whole = Field(default=2, ge=0, le=1000)
    head_channels: Whole = Field(default=24, gt=0)
    head_blocks: Whole = Field(default=0, ge=0, le=100)


class TrainedSection(Section):
    """The network of an imported stage, for a stage that starts from it.

    Attributes:
        kind: names the network.
        stage: folder of the stage, or of a run.
    """

    kind: Literal["trained"]
    stage: str


class AutoencoderKLSection(Section):
    """diffusers' variational autoencoder, which makes an autoencoder stage.

    Attributes:
        kind: names the network.
        channels: channels of each resolution, finest first; multiples of `norm_groups`. Each
            further resolution halves the size: three make latents 4 times smaller than the image.
        blocks: residual blocks per resolution of the encoder; the decoder has one more.
        latent_channels: channels of the latents.
        attention: whether there is self-attention at the coarsest resolution.
        norm_groups: groups of channels that are normalised together.
    """

    kind: Literal["autoencoder_kl"]
    channels: list[Annotated[Whole, Field(gt=0)]] = Field(default=[32, 64, 128], min_length=1)
    blocks: Whole = Field(default=1, gt=0, le=100)
    latent_channels: Whole = Field(default=4, gt=0)
    attention: bool = False
    norm_groups: Whole = Field(default=8, gt=0)


class AutoencoderTinySection(Section):
    """diffusers' small autoencoder without distributions, which makes an autoencoder stage.

    Attributes:
        kind: names the network.
        width: channels of all resolutions.
        levels: how often the size is halved.
        blocks: residual blocks per resolution.
        latent_channels: channels of the latents.
    """

    kind: Literal["autoencoder_tiny"]
    width: Whole = Field(default=64, gt=0)
    levels: Whole = Field(default=3, gt=0, le=10)
    blocks: Whole = Field(default=1, gt=0, le=100)
    latent_channels: Whole = Field(default=4, gt=0)


class MlpSection(Section):
    """Our perceptron for vectors.

    Attributes:
        kind: names the network.
        width: length of the vector between the blocks; a multiple of 64 unless smaller.
        depth: residual blocks. Every second one attends to text, the last one included.
    """

    kind: Literal["mlp"]
    width: Whole = Field(default=512, gt=0)
    depth: Whole = Field(default=6, gt=0, le=1000)
