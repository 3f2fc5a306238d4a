"""Files of the embeddings of texts by one encoder, cut at one number of tokens.

Each file holds `tokens` (T, D) of all its texts, one after the other, `ends` (M,) where each text's
tokens end, and `pooled` (M, P).

Shapes: M texts, T tokens of all of them, D width of a token, P width of a pooled vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from cascade.kept_files import KeptFiles
from cascade.text.encoder import EncodedText, EncoderFacts


def embedding_files(folder: Path, facts: EncoderFacts) -> KeptFiles[EncodedText]:
    """The embeddings in a folder, by text.

    Args:
        folder: the folder, which need not exist yet.
        facts: the encoder that computes them.
    """
    return KeptFiles(folder, partial(_EmbeddingFile, facts=facts), "embeddings of texts")


def tensors_of(encoded: Sequence[EncodedText]) -> dict[str, Tensor]:
    """The tensors of a file with these embeddings."""
    lengths = torch.tensor([len(each.tokens) for each in encoded])
    return {
        "tokens": torch.cat([each.tokens for each in encoded]),
        "ends": lengths.cumsum(0),
        "pooled": torch.stack([each.pooled for each in encoded]),
    }


@final
class _EmbeddingFile:
    """One file; only its keys and ends are in memory.

    Raises:
        ValueError: if its tensors do not fit together.
    """

    def __init__(self, path: Path, facts: EncoderFacts) -> None:
        file: Any = safe_open(path, framework="pt")
        self.keys: np.ndarray = file.get_tensor("keys").numpy()
        self._ends: np.ndarray = file.get_tensor("ends").numpy()
        self._tokens, self._pooled = file.get_slice("tokens"), file.get_slice("pooled")
        count, total = len(self.keys), int(self._ends[-1]) if len(self._ends) else 0
        if (
            self._ends.shape != (count,)
            or np.any(np.diff(self._ends, prepend=0) < 0)
            or self._tokens.get_shape() != [total, facts.width]
            or self._pooled.get_shape() != [count, facts.pooled_width]
        ):
            raise ValueError("its tensors do not fit together")

    def entry(self, row: int) -> EncodedText:
        """The embeddings of one text."""
        start = int(self._ends[row - 1]) if row else 0
        tokens = self._tokens[start : int(self._ends[row])]
        return EncodedText(tokens, self._pooled[row : row + 1][0])
