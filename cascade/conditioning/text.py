"""Text as a condition: its tokens are attended to, and its pooled vector joins the time embedding.

A frozen encoder makes both, as in Imagen (Saharia et al. 2022, arXiv 2205.11487). The encoder's
weights are not part of the stage: the contract names and hashes them. An empty text has no tokens
and a pooled vector of zeros; training hides texts in this way, and guidance pushes away from it.

Shapes: B batch, N tokens, D width of a token, P width of the pooled vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition, Dense, Slots, Vocabulary
from cascade.conditioning.inputs import Request
from cascade.conditioning.signals import Signals, TokenSignal
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.space import Space
from cascade.text.encoder import EncodedText, EncoderFacts
from cascade.text.encoders import MINILM, encoder_of, find_encoder

PromptLike = str | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """The recipe section of text.

    Attributes:
        fields: names of annotation fields in the data; each line of their text is a phrasing.
        encoder: names the encoder; see `cascade.text.encoders.find_encoder`.
        max_tokens: see `Text`.
        drop: see `Text`.
    """

    fields: list[str] = field(default_factory=lambda: ["caption"])
    encoder: str = MINILM
    max_tokens: int = 64
    drop: float = 0.1


@final
@dataclass(frozen=True, kw_only=True)
class Text(Condition):
    """A text, encoded by a frozen encoder.

    Attributes:
        fields: names of annotation fields in the data; each line of their text is a phrasing, one
            of which is drawn for each image from its seed.
        encoder: name of the encoder.
        sha256: hash of the encoder's weights.
        width: width D of a token.
        pooled_width: width P of the pooled vector.
        max_tokens: number N of tokens that the network receives; longer texts are cut.
        drop: probability in [0, 1] that training hides the text of an image.

    Raises:
        ContractError: if a value is out of range.
    """

    name = "text"
    input_name = "prompt"
    recipe = TextOptions

    fields: Sequence[str] = ("caption",)
    encoder: str = MINILM
    sha256: str
    width: int
    pooled_width: int
    max_tokens: int = 64
    drop: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens < 3:
            raise ContractError(f"max_tokens must be at least 3, got {self.max_tokens}.")

    @classmethod
    def of_recipe(cls, options: TextOptions, vocabulary: Vocabulary) -> Text:
        facts = find_encoder(options.encoder).facts
        return cls(
            fields=tuple(options.fields),
            encoder=facts.name,
            sha256=facts.sha256,
            width=facts.width,
            pooled_width=facts.pooled_width,
            max_tokens=options.max_tokens,
            drop=options.drop,
        )

    def config(self) -> dict[str, Any]:
        return asdict(self) | {"fields": list(self.fields)}

    def facts(self) -> dict[str, str]:
        return {"text encoder": self.encoder_facts}

    @property
    def encoder_facts(self) -> str:
        return f"{self.encoder}, weights {self.sha256[:12]}"

    def slots(self, space: Space) -> Slots:
        return Slots(vector=Dense(self.pooled_width), tokens=self.width)

    # ---- data -----------------------------------------------------------------------------------

    @property
    def annotation_fields(self) -> list[str]:
        return list(self.fields)

    def of_annotations(self, annotations: Mapping[str, str]) -> tuple[str, ...]:
        """The phrasings of a picture's text; empty if it has none."""
        texts = [annotations.get(name, "") for name in self.fields]
        lines = (line.strip() for text in texts for line in text.split("\n"))
        return tuple(line for line in lines if line)

    def prepare(self, annotations: Iterable[Mapping[str, str]], folder: Path) -> None:
        texts = {text for each in annotations for text in self.of_annotations(each)}
        encoder_of(self._encoder_facts).encode_ahead(texts, self.max_tokens, folder)

    # ---- training and sampling ------------------------------------------------------------------

    def of_batch(self, batch: Batch, space: Space, noise: SeededNoise) -> Signals:
        phrasings = batch.conditions.get(self.name)
        if phrasings is None:
            raise ContractError("this stage is conditioned on text, but the batch has none.")
        draws = noise.uniform(2)  # (B, 2)
        texts = [
            _pick(each, float(draw)) for each, draw in zip(phrasings, draws[:, 0], strict=True)
        ]
        signals = self._signals(texts, batch.images.device)
        return signals.replaced(draws[:, 1] < self.drop, self.absent(signals))

    def of_request(self, request: Request) -> Signals:
        texts = request.inputs.get(self.input_name) or [""] * request.count
        return self._signals(texts, request.device)

    def absent(self, signals: Signals) -> Signals:
        tokens, pooled = signals.tokens[self.name], signals.vectors[self.name]
        nothing = TokenSignal(torch.zeros_like(tokens.tokens), torch.zeros_like(tokens.mask))
        return Signals(tokens={self.name: nothing}, vectors={self.name: torch.zeros_like(pooled)})

    def completed(self, value: PromptLike | None, seeds: Sequence[int], *, draw: bool) -> list[str]:
        """One text per image; `value` is a text for all images or one for each."""
        texts = [value or ""] * len(seeds) if value is None or isinstance(value, str) else value
        if not isinstance(texts, Sequence) or not all(isinstance(each, str) for each in texts):
            raise ContractError(
                f"prompt must be a text for all images or a list with one for each, got {value!r}."
            )
        if len(texts) != len(seeds):
            raise ContractError(f"got {len(texts)} prompts for {len(seeds)} images.")
        return list(texts)

    def input_of(self, batch: Batch, space: Space, *, degraded: bool = False) -> list[str] | None:
        phrasings = batch.conditions.get(self.name)
        return None if phrasings is None else [each[0] if each else "" for each in phrasings]

    @property
    def _encoder_facts(self) -> EncoderFacts:
        return EncoderFacts(self.encoder, self.sha256, self.width, self.pooled_width)

    def _signals(self, texts: Sequence[str], device: torch.device) -> Signals:
        encoded = encoder_of(self._encoder_facts).encode(texts, self.max_tokens)
        tokens = torch.stack([self._padded(each) for each in encoded])  # (B, N, D)
        lengths = torch.tensor([len(each.tokens) for each in encoded])
        mask = torch.arange(self.max_tokens) < lengths[:, None]  # (B, N)
        pooled = torch.stack([each.pooled.float() for each in encoded])  # (B, P)
        return Signals(
            tokens={self.name: TokenSignal(tokens.to(device), mask.to(device))},
            vectors={self.name: pooled.to(device)},
        )

    def _padded(self, encoded: EncodedText) -> Tensor:
        padded = torch.zeros(self.max_tokens, self.width)
        padded[: len(encoded.tokens)] = encoded.tokens
        return padded


def _pick(phrasings: Sequence[str], uniform: float) -> str:
    """One of the phrasings, by a number in [0, 1); empty if there are none."""
    return phrasings[int(uniform * len(phrasings))] if phrasings else ""
