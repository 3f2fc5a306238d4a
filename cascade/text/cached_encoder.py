"""CachedEncoder: remembers the embeddings of texts, in memory and in files.

A file holds the embeddings of a list of texts by one encoder, as safetensors: `tokens` (T, D) of
all texts, one after the other, `ends` (M,) where each text's tokens end, `pooled` (M, P), and
`texts`, the texts in UTF-8 with a line feed after each.

Shapes: M texts, T tokens of all of them, D width of a token, P width of a pooled vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cascade.errors import ContractError
from cascade.text.encoder import CutText, EncodedText, EncoderFacts, TextEncoder


@final
class CachedEncoder(TextEncoder):
    """An encoder that encodes a text only once.

    Args:
        facts: name, hash and widths of the encoder.
        find: finds the encoder itself by name, when a text is not known yet.
    """

    def __init__(self, facts: EncoderFacts, find: Callable[[str], TextEncoder]) -> None:
        self._facts = facts
        self._find = find
        self._encoder: TextEncoder | None = None
        self._known: dict[tuple[str, int], EncodedText] = {}

    @property
    def facts(self) -> EncoderFacts:
        return self._facts

    def encode(self, texts: Sequence[str], max_tokens: int) -> list[EncodedText]:
        unknown = [text for text in dict.fromkeys(texts) if (text, max_tokens) not in self._known]
        if unknown:
            for text, encoded in zip(unknown, self.live.encode(unknown, max_tokens), strict=True):
                self._known[text, max_tokens] = encoded
        return [self._known[text, max_tokens] for text in texts]

    def cut(self, text: str, max_tokens: int) -> CutText:
        if (text, max_tokens) in self._known and self._encoder is None:
            return CutText(text, "")
        return self.live.cut(text, max_tokens)

    @property
    def live(self) -> TextEncoder:
        """The encoder itself.

        Raises:
            ContractError: if it cannot be found, or has other weights than those of `facts`.
        """
        if self._encoder is None:
            encoder = self._find(self._facts.name)
            if encoder.facts != self._facts:
                raise ContractError(
                    f"text encoder {self._facts.name!r} must be {_words(self._facts)}, as in "
                    f"training, but the one here is {_words(encoder.facts)}."
                )
            self._encoder = encoder
        return self._encoder

    def encode_ahead(self, texts: Iterable[str], max_tokens: int, folder: Path) -> None:
        """Encode texts, or read their embeddings from a file that an earlier call wrote.

        Args:
            texts: the texts.
            max_tokens: see `encode`.
            folder: where the file is; its name follows from encoder and texts.
        """
        lines = sorted(set(texts))
        digest = hashlib.sha256("\n".join([self._facts.sha256, str(max_tokens), *lines]).encode())
        file = folder / f"texts-{digest.hexdigest()[:24]}.safetensors"
        if file.is_file():
            self.read(file, max_tokens)
            return
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_packed(lines, self.encode(lines, max_tokens)), file)

    def read(self, file: Path, max_tokens: int) -> None:
        """Remember the embeddings in a file."""
        tensors = load_file(file)
        texts = bytes(tensors["texts"].numpy()).decode().split("\n")[:-1]
        ends = tensors["ends"].tolist()
        for text, start, end, pooled in zip(
            texts, [0, *ends], ends, tensors["pooled"], strict=False
        ):
            self._known[text, max_tokens] = EncodedText(tensors["tokens"][start:end], pooled)


def _packed(texts: Sequence[str], encoded: Sequence[EncodedText]) -> dict[str, Tensor]:
    lengths = torch.tensor([len(each.tokens) for each in encoded])
    lines = "".join(f"{text}\n" for text in texts).encode()
    return {
        "tokens": torch.cat([each.tokens for each in encoded]),
        "ends": lengths.cumsum(0),
        "pooled": torch.stack([each.pooled for each in encoded]),
        "texts": torch.frombuffer(bytearray(lines), dtype=torch.uint8),
    }


def _words(facts: EncoderFacts) -> str:
    return f"{facts.width} wide with weights {facts.sha256[:12]}"
