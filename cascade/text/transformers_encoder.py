"""Text encoders of the library transformers: BERT and MiniLM, T5, and the text tower of CLIP.

Shapes: B texts, N tokens of a text, D width of a token, P width of a pooled vector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.text.encoder import CutText, EncodedText, EncoderFacts, TextEncoder

TEXTS_AT_ONCE = 64
WEIGHTS = "model.safetensors"


@final
class TransformersEncoder(TextEncoder):
    """An encoder in a folder that transformers wrote.

    Args:
        name: names it in recipes.
        folder: holds `config.json`, `model.safetensors` and a tokenizer.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    @cached_property
    def facts(self) -> EncoderFacts:
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config") or config
        width = config.get("hidden_size") or config["d_model"]
        with (self.folder / WEIGHTS).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return EncoderFacts(self.name, sha256, width, width)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], max_tokens: int) -> list[EncodedText]:
        encoded = []
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            encoded += self._encode(texts[first : first + TEXTS_AT_ONCE], max_tokens)
        return encoded

    def cut(self, text: str, max_tokens: int) -> CutText:
        offsets = self._tokenizer(
            text, truncation=True, max_length=max_tokens, return_offsets_mapping=True
        )["offset_mapping"]
        end = max((stop for _, stop in offsets), default=0)
        return CutText(text[:end], text[end:].strip())

    def _encode(self, texts: Sequence[str], max_tokens: int) -> list[EncodedText]:
        batch = self._tokenizer(
            [text.strip() for text in texts],
            truncation=True,
            max_length=max_tokens,
            padding=True,
            return_tensors="pt",
        )
        output = self._model(**batch)
        mask = batch["attention_mask"].bool()
        pooled = _pooled(output, mask)
        return [
            self._encoded(text, tokens[own], vector)
            for text, tokens, own, vector in zip(
                texts, output.last_hidden_state, mask, pooled, strict=True
            )
        ]

    def _encoded(self, text: str, tokens: Tensor, pooled: Tensor) -> EncodedText:
        if not text.strip():
            tokens, pooled = tokens[:0], torch.zeros_like(pooled)
        return EncodedText(tokens.half(), pooled.half())

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder, local_files_only=True)

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModel

        model = AutoModel.from_pretrained(
            self.folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
        return model.eval().requires_grad_(False)


def _pooled(output: Any, mask: Tensor) -> Tensor:
    """The mean of the tokens (B, D), scaled to a root mean square of 1."""
    weight = mask[..., None].to(output.last_hidden_state.dtype)
    mean = (output.last_hidden_state * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
    return F.normalize(mean, dim=-1) * mean.shape[-1] ** 0.5
