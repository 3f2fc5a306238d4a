"""The image half of a CLIP as an encoder of images (Radford et al. 2021, arXiv 2103.00020).

Shapes: B images, S pixels of a side, E width of an embedding.
"""

from __future__ import annotations

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.errors import CascadeError, WeightsError, first_line
from cascade.extras import install_command
from cascade.text.encoder_folder import EncoderFolder
from cascade.vision.encoder import VisionEncoder, VisionFacts

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@final
class ClipVision(VisionEncoder):
    """The image half of a CLIP that transformers wrote into a folder.

    Args:
        folder: the folder, with `config.json` and `model.safetensors`.

    Raises:
        CascadeError: if transformers is not installed.
        WeightsError: if the folder does not hold such weights.
    """

    _network: Any  # transformers gives its parts no types

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("transformers") is None:
            raise CascadeError(f"CLIP needs transformers; run {install_command('text')}.")
        import transformers

        self._folder = EncoderFolder(folder)
        try:
            kind: Any = transformers.CLIPVisionModelWithProjection  # pyright: ignore
            network, loaded = kind.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # transformers raises many kinds for damaged files
            raise WeightsError(f"{folder}: not a CLIP ({first_line(error)}).") from error
        if loaded["missing_keys"]:  # transformers would fill them with random numbers
            raise WeightsError(f"{folder}: not the weights of a CLIP with its image half.")
        self._network = network.eval().requires_grad_(False)

    @cached_property
    def facts(self) -> VisionFacts:
        width = int(self._network.config.projection_dim)
        return VisionFacts(self._folder.stated_name, self._folder.sha256, width)

    @property
    def seen_px(self) -> int:
        return int(self._network.config.image_size)

    def to(self, device: torch.device) -> None:
        self._network.to(device)

    @torch.no_grad()
    def directions(self, seen: Tensor) -> Tensor:
        device = self._network.device
        mean, std = (torch.tensor(each, device=device).view(1, 3, 1, 1) for each in (MEAN, STD))
        pixels = ((seen.to(device) + 1) / 2 - mean) / std
        return F.normalize(self._network(pixel_values=pixels).image_embeds.float(), dim=-1)
