"""KnownTexts: embeddings of texts that travel with a stage, so that these need no encoder.

Numbers are rounded to 8 bits, with one scale per token, so that its largest number becomes 127.

Shapes: M texts, T tokens of all of them, D width of a token, P width of a pooled vector.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cascade.errors import ContractError, WeightsError, nearest
from cascade.reporting.words import counted
from cascade.text.encoder import EncodedText, EncoderFacts, TextEncoder

LARGEST_BYTES = 4 * 2**20
LARGEST_NUMBER = 127
TENSORS = ("tokens", "token_scales", "ends", "pooled", "pooled_scales", "texts")
SEARCHED_CHARACTERS = 200  # of a prompt, for the nearest known texts


@final
class KnownTexts:
    """The embeddings of some texts.

    Args:
        tensors: `tokens` (T, D) and `pooled` (M, P) int8 with `token_scales` (T,) and
            `pooled_scales` (M,) float32, `ends` (M,) where each text's tokens end, and `texts`,
            uint8, the texts in UTF-8 with a line feed after each.
        ignores_case: whether a text is also known in upper or lower case.

    Attributes:
        texts: the texts.
    """

    def __init__(self, tensors: dict[str, Tensor], *, ignores_case: bool) -> None:
        self._tensors = tensors
        self._ignores_case = ignores_case
        self.texts = bytes(tensors["texts"].numpy()).decode().split("\n")[:-1]
        self._rows = {self._key(text): row for row, text in enumerate(self.texts)}

    @classmethod
    def of(cls, texts: Iterable[str], encoder: TextEncoder, max_tokens: int) -> KnownTexts:
        """Encode texts.

        Args:
            texts: the texts; line breaks within them become spaces, and empty ones are left out.
            encoder: the encoder.
            max_tokens: see `TextEncoder.encode`.

        Raises:
            ContractError: if their embeddings take more than 4 MiB.
        """
        lines = list(dict.fromkeys(" ".join(text.split()) for text in texts if text.strip()))
        if not lines:
            raise ContractError("there are no known texts, only empty lines.")
        encoded = encoder.encode(lines, max_tokens)
        tokens, token_scales = _rounded(torch.cat([each.tokens for each in encoded]))
        pooled, pooled_scales = _rounded(torch.stack([each.pooled for each in encoded]))
        data = "".join(f"{line}\n" for line in lines).encode()
        tensors = {
            "tokens": tokens,
            "token_scales": token_scales,
            "ends": torch.tensor([len(each.tokens) for each in encoded]).cumsum(0),
            "pooled": pooled,
            "pooled_scales": pooled_scales,
            "texts": torch.frombuffer(bytearray(data), dtype=torch.uint8),
        }
        _check_size(tensors, len(lines))
        return cls(tensors, ignores_case=encoder.ignores_case)

    @classmethod
    def read(cls, file: Path, facts: EncoderFacts, max_tokens: int) -> KnownTexts:
        """Read a file.

        Args:
            file: the file.
            facts: the encoder that encoded the texts.
            max_tokens: see `TextEncoder.encode`.

        Raises:
            WeightsError: if it is damaged, or its embeddings are not of these sizes.
        """
        try:
            with safe_open(file, framework="pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in TENSORS}
                ignores_case = opened.metadata()["ignores_case"] == "yes"
            known = cls(tensors, ignores_case=ignores_case)
            _check_shapes(tensors, len(known), facts, max_tokens)
            return known
        except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            raise WeightsError(f"{file} is damaged ({error}); fetch it again.") from error

    def write(self, file: Path) -> None:
        """Write a file."""
        metadata = {"ignores_case": "yes" if self._ignores_case else "no"}
        save_file(self._tensors, file, metadata=metadata)

    def __len__(self) -> int:
        return len(self.texts)

    def get(self, text: str) -> EncodedText | None:
        """The embeddings of a text; None if it is not known."""
        row = self._rows.get(self._key(text))
        if row is None:
            return None
        ends = self._tensors["ends"]
        own = slice(int(ends[row - 1]) if row else 0, int(ends[row]))
        tokens = self._tensors["tokens"][own] * self._tensors["token_scales"][own, None]
        pooled = self._tensors["pooled"][row] * self._tensors["pooled_scales"][row]
        return EncodedText(tokens.half(), pooled.half())

    def nearest(self, text: str) -> str:
        """Suggest known texts, as the end of an error message."""
        return nearest(text[:SEARCHED_CHARACTERS], self.texts)

    def _key(self, text: str) -> str:
        text = " ".join(text.split())
        return text.lower() if self._ignores_case else text


def _rounded(values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (T, D) as int8, and the scale (T,) by which to multiply each."""
    scales = values.float().abs().amax(dim=1).clamp(min=1e-12) / LARGEST_NUMBER
    return (values.float() / scales[:, None]).round().to(torch.int8), scales


def _check_shapes(
    tensors: dict[str, Tensor], count: int, facts: EncoderFacts, max_tokens: int
) -> None:
    """Raise ValueError unless the tensors fit together, the encoder and the number of tokens."""
    ends, total = tensors["ends"], len(tensors["tokens"])
    expected = {
        "tokens": (total, facts.width),
        "token_scales": (total,),
        "ends": (count,),
        "pooled": (count, facts.pooled_width),
        "pooled_scales": (count,),
    }
    lengths = ends.diff(prepend=ends.new_zeros(1))
    if (
        any(tensors[name].shape != shape for name, shape in expected.items())
        or any(tensors[name].dtype != torch.int8 for name in ("tokens", "pooled"))
        or not count
        or int(ends[-1]) != total
        or int(lengths.min()) < 0
        or int(lengths.max()) > max_tokens
    ):
        raise ValueError("its tensors do not fit together")


def _check_size(tensors: dict[str, Tensor], count: int) -> None:
    total = sum(each.nbytes for each in tensors.values())
    if total > LARGEST_BYTES:
        raise ContractError(
            f"the embeddings of {counted(count, 'known text')} take {total / 2**20:.1f} MiB, but a "
            f"stage carries at most {LARGEST_BYTES // 2**20} MiB; keep about "
            f"{int(count * LARGEST_BYTES / total * 0.98):,} of them."
        )
