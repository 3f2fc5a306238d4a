"""The networks of a stage behind one call: (x_t, t, conditions) -> output.

Images, and what an encoder sees in them, are concatenated by channel, vectors summed, and a pixel
unshuffle moves the work to a lower resolution; what remains is a plain diffusers U-Net or our pixel
transformer, which can be loaded on its own.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from diffusers import ModelMixin, UNet2DConditionModel
from torch import Tensor, nn

from cascade.conditioning.conditions import Conditions
from cascade.errors import ContractError, RecipeError
from cascade.networks.embedding import ConditionEmbedding
from cascade.networks.image_encoder import ImageEncoder
from cascade.networks.transformer import PixelTransformer

HEAD_CHANNELS = 64


class StageNetwork(nn.Module, ABC):
    """A backbone, its condition embedding and encoder, and the shuffle of pixels into patches.

    Args:
        backbone: called as diffusers' `UNet2DConditionModel` is.
        embedding: of labels and augmentation level; None if the stage has neither.
        patch_size: side in pixels of the square that is folded into channels before the backbone.
        size_multiple_px: image sides must be multiples of it.
        encoder: of the given image, whose features are concatenated too; None for none.
    """

    component: ClassVar[str]
    backbone_class: ClassVar[type[ModelMixin]]

    def __init__(
        self,
        backbone: ModelMixin,
        embedding: ConditionEmbedding | None,
        *,
        patch_size: int,
        size_multiple_px: int,
        encoder: ImageEncoder | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.embedding = embedding
        self.encoder = encoder
        self.patch_size = patch_size
        self.size_multiple_px = size_multiple_px

    @property
    def channels(self) -> tuple[float, float]:
        """Of the images that go in, joined, and of those that come out."""
        config, pixels = self.backbone.config, self.patch_size**2
        seen = 0 if self.encoder is None else self.encoder.config["channels"]
        return (config["in_channels"] - seen) / pixels, config["out_channels"] / pixels

    @property
    def has_attention(self) -> bool:
        """Whether what it says of a place depends on all others, however far away."""
        return any("Attention" in type(module).__name__ for module in self.backbone.modules())

    def finest_map_numbers(self, side_px: int) -> int:
        """How many numbers one feature map of the finest resolution has, for a square image."""
        config = self.backbone.config
        channels = config.get("block_out_channels", [config.get("width")])[0]
        patch_px = config.get("patch_size", self.patch_size)
        return channels * (side_px // patch_px) ** 2

    def forward(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """Predict.

        Args:
            x_t: (B, C, H, W) noisy images.
            t: (B,) training timesteps.
            conditions: of the batch; its image, if any, is (B, C', H, W).

        Returns:
            (B, C, H, W), or 2 C channels with learned variances.

        Raises:
            ContractError: if height or width does not fit the network.
        """
        height, width = x_t.shape[-2:]
        if height % self.size_multiple_px or width % self.size_multiple_px:
            raise ContractError(
                f"image sides must be multiples of {self.size_multiple_px} px for this network, "
                f"got {width}x{height}; pad or crop the image."
            )
        x = x_t if conditions.image is None else torch.cat([x_t, conditions.image], dim=1)
        x = x.to(self.backbone.dtype)
        vector = None
        if self.embedding is not None:
            vector = self.embedding(conditions.labels, conditions.level)
        folded = F.pixel_unshuffle(x, self.patch_size)
        features = self.seen(conditions).features
        if features is not None:
            folded = torch.cat([folded, features.to(x.dtype)], dim=1)
        output = self.backbone(folded, t, encoder_hidden_states=None, class_labels=vector).sample
        return F.pixel_shuffle(output, self.patch_size)

    def seen(self, conditions: Conditions) -> Conditions:
        """Conditions with what the encoder, if any, sees in their image.

        Who calls the network often with the same image lets it look once before.
        """
        if self.encoder is None or conditions.image is None or conditions.features is not None:
            return conditions
        height, width = (side // self.patch_size for side in conditions.image.shape[-2:])
        image = conditions.image.to(self.backbone.dtype)
        return replace(conditions, features=self.encoder(image, (height, width)))


class StageUNet(StageNetwork):
    """diffusers' `UNet2DConditionModel` as a stage network."""

    component = "unet"
    backbone_class = UNet2DConditionModel

    @classmethod
    def build(
        cls,
        embedding: ConditionEmbedding | None,
        *,
        in_channels: int,
        out_channels: int,
        size_px: int,
        patch_size: int = 1,
        channels: Sequence[int] = (64, 128, 256),
        blocks: int = 2,
        attention: Sequence[bool] | None = None,
        encoder_channels: int = 0,
    ) -> StageUNet:
        """Make a new U-Net.

        Args:
            embedding: of labels and augmentation level, or None.
            in_channels: of the noisy image and what is concatenated to it.
            out_channels: of the prediction.
            size_px: side of the images it is trained on.
            patch_size: side of the folded square, in pixels.
            channels: of each resolution, finest first; multiples of 8.
            blocks: residual blocks of each resolution.
            attention: which resolutions have self-attention; default: none.
            encoder_channels: how many channels an `ImageEncoder` adds; 0 for no encoder.

        Raises:
            RecipeError: if the sizes do not divide.
            WeightsError: if the encoder's weights are not installed.
        """
        attention = list(attention) if attention is not None else [False] * len(channels)
        if len(attention) != len(channels):
            raise RecipeError(
                f"network.attention needs one entry per entry of network.channels "
                f"({len(channels)}), got {len(attention)}."
            )
        if any(width % 8 for width in channels):
            raise RecipeError(f"network.channels must be multiples of 8, got {list(channels)}.")
        multiple = patch_size * 2 ** (len(channels) - 1)
        if size_px % multiple:
            raise RecipeError(
                f"size {size_px} px must be a multiple of patch_size x 2^(levels - 1) = {multiple}."
            )
        unet = UNet2DConditionModel(
            sample_size=size_px // patch_size,
            in_channels=in_channels * patch_size**2 + encoder_channels,
            out_channels=out_channels * patch_size**2,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
            mid_block_type="UNetMidBlock2D",
            up_block_types=tuple(
                "AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)
            ),
            block_out_channels=tuple(channels),
            layers_per_block=blocks,
            attention_head_dim=math.gcd(HEAD_CHANNELS, *channels),
            norm_num_groups=math.gcd(32, *channels),
            class_embed_type="projection" if embedding is not None else None,
            projection_class_embeddings_input_dim=(
                embedding.config["dim"] if embedding is not None else None
            ),
        )
        for parameter in unet.conv_out.parameters():
            nn.init.zeros_(parameter)
        encoder = ImageEncoder.pretrained(encoder_channels, size_px) if encoder_channels else None
        return cls(
            unet, embedding, patch_size=patch_size, size_multiple_px=multiple, encoder=encoder
        )


class StageTransformer(StageNetwork):
    """Our `PixelTransformer` as a stage network; it folds patches itself."""

    component = "transformer"
    backbone_class = PixelTransformer

    @classmethod
    def build(
        cls,
        embedding: ConditionEmbedding | None,
        *,
        in_channels: int,
        out_channels: int,
        size_px: int,
        patch_size: int = 8,
        width: int = 256,
        depth: int = 8,
        fine_width: int = 128,
        fine_depth: int = 2,
        head_channels: int = 24,
    ) -> StageTransformer:
        """Make a new transformer; see `PixelTransformer` for the arguments.

        Raises:
            RecipeError: if the patches do not divide the image, or the widths into heads.
        """
        if size_px % patch_size:
            raise RecipeError(f"size {size_px} px must be a multiple of patch_size {patch_size}.")
        transformer = PixelTransformer(
            in_channels=in_channels,
            out_channels=out_channels,
            patch_size=patch_size,
            width=width,
            depth=depth,
            fine_width=fine_width,
            fine_depth=fine_depth,
            head_channels=head_channels,
            projection_class_embeddings_input_dim=(
                embedding.config["dim"] if embedding is not None else None
            ),
        )
        return cls(transformer, embedding, patch_size=1, size_multiple_px=patch_size)


NETWORKS: dict[str, type[StageUNet] | type[StageTransformer]] = {
    "unet": StageUNet,
    "transformer": StageTransformer,
}
