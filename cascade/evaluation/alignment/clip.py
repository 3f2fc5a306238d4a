"""CLIP as a judge of alignment, with the CLIP score of published figures.

As torchmetrics' `CLIPScore`: 100 times the cosine of the embeddings of image and text, negative
values as 0. Hessel et al. 2021 (arXiv 2104.08718), who proposed the score, have the factor 2.5.

Shapes: B images, M texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.errors import WeightsError
from cascade.evaluation.alignment.model import AlignmentModel
from cascade.evaluation.published_extractors import CLIP
from cascade.evaluation.published_weights import import_package, weights_error
from cascade.resizing import quantise, resize
from cascade.saving.components import weights_digest


@final
class ClipAlignment(AlignmentModel):
    """A whole CLIP of the library transformers.

    Args:
        folder: a folder with its `config.json`, `model.safetensors` and tokenizer; default: the
            Hub's openai/clip-vit-large-patch14.

    Raises:
        CascadeError: if transformers is not installed.
        WeightsError: if the weights cannot be loaded.
    """

    has_clip_score = True
    _clip: Any  # the network; transformers gives its parts no types

    def __init__(self, folder: Path | None = None) -> None:
        module = import_package("transformers")
        source, options = folder or CLIP.hub_id, {"local_files_only": folder is not None}
        try:
            self._tokenizer = module.AutoTokenizer.from_pretrained(source, **options)
            network, loaded = module.CLIPModel.from_pretrained(
                source, use_safetensors=True, output_loading_info=True, **options
            )
        except Exception as error:  # many kinds: network, Hub, damaged files
            raise weights_error(CLIP.name, str(source), "alignment", error) from error
        if loaded["missing_keys"]:  # transformers would fill them with random numbers
            raise WeightsError(f"{source}: not the weights of a whole CLIP, with its text half.")
        self.network = self._clip = network.eval().requires_grad_(False)
        vision = network.config.vision_config
        self._side_px = int(vision.image_size)
        self.name = f"{CLIP.name}-{vision.hidden_size}/{vision.patch_size}"
        self.resizing = f"antialiased bicubic to {self._side_px} px"

    @torch.no_grad()
    def image_embeddings(self, images: Tensor) -> Tensor:
        images = (resize(quantise(images), (self._side_px, self._side_px), "bicubic") + 1) / 2
        mean, std = (
            torch.tensor(each, device=images.device).view(1, 3, 1, 1)
            for each in (CLIP.mean, CLIP.std)
        )
        pooled = self._clip.vision_model((images - mean) / std).pooler_output
        return F.normalize(self._clip.visual_projection(pooled), dim=-1)

    @torch.no_grad()
    def text_embeddings(self, texts: Sequence[str]) -> Tensor:
        batch = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        device = self._clip.device
        pooled = self._clip.text_model(
            batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device)
        ).pooler_output
        return F.normalize(self._clip.text_projection(pooled), dim=-1)

    def fingerprint(self) -> str:
        basis = f"{self.name}, {self.resizing}, {weights_digest(self.network)}"
        return hashlib.sha256(basis.encode()).hexdigest()
