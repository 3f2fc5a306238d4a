"""Text as a condition: its tokens are attended to, and its pooled vector joins the time embedding.

A frozen encoder makes both, as in Imagen (Saharia et al. 2022, arXiv 2205.11487). The encoder's
weights are not part of the stage: the contract names and hashes them. An empty text has no tokens
and a pooled vector of zeros; training hides texts in this way, and guidance pushes away from it.
A stage can carry the embeddings of some texts, so that these need no encoder.

Shapes: B batch, N tokens, D width of a token, P width of the pooled vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from cascade.arguments import shown
from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition, Vocabulary
from cascade.conditioning.inputs import Request
from cascade.conditioning.signals import Signals, TokenSignal
from cascade.conditioning.slots import Dense, Slots
from cascade.diffusion.noise import SeededNoise
from cascade.errors import CascadeError, ContractError
from cascade.reporting.words import counted
from cascade.space import Space
from cascade.text.encoder import CutText, EncodedText, EncoderFacts
from cascade.text.encoders import MINILM, encoder_of, find_encoder
from cascade.text.known_texts import KnownTexts

PromptLike = str | Sequence[str]
KNOWN_TEXTS = "known_texts.safetensors"
LONGEST_SHOWN = 60  # characters of a prompt in a message
LEAST_TOKENS = 3  # encoders mark the beginning and the end


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """The recipe section of text; see `Text`.

    Attributes:
        encoder: the text encoder: `minilm-l6`, a folder, or a name on the Hub.
    """

    fields: list[str] = field(default_factory=lambda: ["caption"])
    encoder: str = MINILM
    max_tokens: int = 64
    drop: float = 0.1
    padded: bool = False


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
        max_tokens: number N of tokens that the network receives, including the encoder's marks of
            begin and end, at least 3 and at most what the encoder takes; longer texts are cut.
        drop: probability in [0, 1] that an image trains with an empty text, which classifier-free
            guidance needs.
        padded: whether all texts are padded to `max_tokens` tokens, all of which the network
            attends to, and an empty text is encoded like any other, as in DeepFloyd IF.
        known: texts whose embeddings the stage carries; None for none. They are saved in a file of
            their own.

    Raises:
        ContractError: if a value is out of range.
    """

    name = "text"
    input_name = "prompt"
    negative_name = "negative_prompt"
    recipe = TextOptions
    takes_text = True
    files = (KNOWN_TEXTS,)

    fields: Sequence[str] = ("caption",)
    encoder: str = MINILM
    sha256: str
    width: int
    pooled_width: int
    max_tokens: int = 64
    drop: float = 0.1
    padded: bool = False
    known: KnownTexts | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.fields, str):
            raise ContractError(f"fields must be a list of names, got {self.fields!r}.")
        object.__setattr__(self, "fields", tuple(self.fields))  # JSON has lists only
        if self.max_tokens < LEAST_TOKENS:
            raise ContractError(
                f"max_tokens must be at least {LEAST_TOKENS}, got {self.max_tokens}."
            )

    @classmethod
    def of_recipe(cls, options: TextOptions, vocabulary: Vocabulary) -> Text:
        return cls.of_encoder(**asdict(options))

    @classmethod
    def of_encoder(
        cls,
        encoder: str = MINILM,
        *,
        fields: Sequence[str] = ("caption",),
        max_tokens: int = 64,
        drop: float = 0.1,
        padded: bool = False,
    ) -> Text:
        """Make the condition for an encoder on this machine or on the Hub.

        Args:
            encoder: names the encoder; see `cascade.text.encoders.find_encoder`.
            fields: see `Text`.
            max_tokens: see `Text`.
            drop: see `Text`.
            padded: see `Text`.

        Raises:
            CascadeError: if the encoder cannot be found, or a value is out of range.
        """
        source = find_encoder(encoder)
        most, facts = source.most_tokens, source.facts
        if most is not None and max_tokens > most:
            raise ContractError(
                f"max_tokens must be at most {most} for the text encoder {facts.name}, got "
                f"{max_tokens}."
            )
        return cls(
            fields=fields,
            encoder=facts.name,
            sha256=facts.sha256,
            width=facts.width,
            pooled_width=facts.pooled_width,
            max_tokens=max_tokens,
            drop=drop,
            padded=padded,
        )

    def config(self) -> dict[str, Any]:
        names = ("encoder", "sha256", "width", "pooled_width", "max_tokens", "drop")
        config = {"fields": list(self.fields)} | {name: getattr(self, name) for name in names}
        return {**config, "padded": True} if self.padded else config

    def facts(self) -> dict[str, str]:
        facts = {
            "text encoder": self.encoded_by,
            "prompts": f"texts of up to {self.max_tokens} tokens; longer ones are truncated",
        }
        if self.known is not None:
            facts["known texts"] = f"{len(self.known):,}, which need no text encoder"
        return facts

    @property
    def encoded_by(self) -> str:
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

    def prepare(
        self, annotations: Iterable[Mapping[str, str]], folder: Path, device: torch.device
    ) -> None:
        texts = {text for each in annotations for text in self.of_annotations(each)}
        encoder = encoder_of(self._encoder_facts)
        encoder.encode_ahead(texts, self.max_tokens, folder / "texts", device=device)

    # ---- known texts ----------------------------------------------------------------------------

    def with_known_texts(self, texts: Iterable[str]) -> Text:
        encoder = encoder_of(self._encoder_facts)
        return replace(self, known=KnownTexts.of(texts, encoder, self.max_tokens))

    def write_files(self, folder: Path) -> None:
        if self.known is not None:
            self.known.write(folder / KNOWN_TEXTS)

    def with_files(self, folder: Path) -> Text:
        file = folder / KNOWN_TEXTS
        if not file.is_file():
            return self
        return replace(self, known=KnownTexts.read(file, self._encoder_facts, self.max_tokens))

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

    def against_request(self, request: Request, own: Signals) -> Signals:
        texts = request.inputs.get(self.negative_name)
        if texts is None:
            return super().against_request(request, own)
        return self._signals(texts, request.device)

    def absent(self, signals: Signals) -> Signals:
        tokens, pooled = signals.tokens[self.name], signals.vectors[self.name]
        if self.padded:
            one = self._signals([""], pooled.device)
            return one.map(lambda each: each.expand(len(pooled), *each.shape[1:]))
        nothing = TokenSignal(torch.zeros_like(tokens.tokens), torch.zeros_like(tokens.mask))
        return Signals(tokens={self.name: nothing}, vectors={self.name: torch.zeros_like(pooled)})

    def completed(self, value: PromptLike | None, seeds: Sequence[int], *, draw: bool) -> list[str]:
        """One text per image; `value` is a text for all images or one for each.

        Raises:
            ContractError: if it is neither, or no valid Unicode.
        """
        texts = [value or ""] * len(seeds) if value is None or isinstance(value, str) else value
        if not isinstance(texts, Sequence) or not all(isinstance(each, str) for each in texts):
            raise ContractError(
                "prompt must be a text for all images or a list with one for each, got "
                f"{shown(value)}."
            )
        if len(texts) != len(seeds):
            raise ContractError(
                f"got {counted(len(texts), 'prompt')} for {counted(len(seeds), 'image')}; give one "
                "for all, or one for each."
            )
        for text in texts:
            _check_unicode(text)
        return list(texts)

    def cuts(self, values: Sequence[str]) -> dict[str, CutText]:
        cuts = {text: self.cut(text) for text in dict.fromkeys(values)}
        return {text: cut for text, cut in cuts.items() if not cut.is_read}

    def cut(self, text: str) -> CutText:
        """Split a text after the last token that the network receives.

        Raises:
            CascadeError: if the encoder is needed and cannot be found.
        """
        if self._is_known(text):
            return CutText(text, "")
        try:
            return encoder_of(self._encoder_facts).cut(text, self.max_tokens)
        except CascadeError as error:
            raise self._without_encoder(text, error) from error

    def input_of(self, batch: Batch, space: Space, *, degraded: bool = False) -> list[str] | None:
        phrasings = batch.conditions.get(self.name)
        return None if phrasings is None else [each[0] if each else "" for each in phrasings]

    @property
    def _encoder_facts(self) -> EncoderFacts:
        widths = self.width, self.pooled_width
        return EncoderFacts(self.encoder, self.sha256, *widths, self.padded)

    def _signals(self, texts: Sequence[str], device: torch.device) -> Signals:
        encoded = self._encoded(texts, device)
        tokens = torch.stack([self._padded(each) for each in encoded])  # (B, N, D)
        lengths = torch.tensor([len(each.tokens) for each in encoded])
        mask = torch.arange(self.max_tokens) < lengths[:, None]  # (B, N)
        pooled = torch.stack([each.pooled.float() for each in encoded])  # (B, P)
        return Signals(
            tokens={self.name: TokenSignal(tokens.to(device), mask.to(device))},
            vectors={self.name: pooled.to(device)},
        )

    def _encoded(self, texts: Sequence[str], device: torch.device) -> list[EncodedText]:
        """The embeddings of texts: those that the stage carries, and the encoder's for others.

        A text that is known looks the same whether or not the encoder is installed.
        """
        recalled = {text: None if self.known is None else self.known.get(text) for text in texts}
        encoded = {text: each for text, each in recalled.items() if each is not None}
        others = [text for text in recalled if text not in encoded]
        try:
            encoder = encoder_of(self._encoder_facts)
            fresh = encoder.encode(others, self.max_tokens, device=device)
        except CascadeError as error:
            unknown = next(text for text in others if text.strip() or self.padded)
            raise self._without_encoder(unknown, error) from error
        encoded |= dict(zip(others, fresh, strict=True))
        return [encoded[text] for text in texts]

    def _without_encoder(self, text: str, error: CascadeError) -> CascadeError:
        """The error for a text that needs the encoder, which cannot be found."""
        if self.known is None:
            return error
        return ContractError(
            f"the prompt {_shortened(text)!r} is not among the "
            f"{counted(len(self.known), 'known text')}, and {str(error).rstrip('.')}; "
            f"{self.known.nearest(text)}"
        )

    def _is_known(self, text: str) -> bool:
        is_empty = not text.strip() and not self.padded
        return is_empty or (self.known is not None and self.known.get(text) is not None)

    def _padded(self, encoded: EncodedText) -> Tensor:
        padded = torch.zeros(self.max_tokens, self.width)
        padded[: len(encoded.tokens)] = encoded.tokens
        return padded


def _pick(phrasings: Sequence[str], uniform: float) -> str:
    """One of the phrasings, by a number in [0, 1); empty if there are none."""
    if isinstance(phrasings, str):
        raise ContractError(
            "a batch's text must be a tuple of phrasings for each image, such as "
            f"({_shortened(phrasings)!r},), got the text alone."
        )
    return phrasings[int(uniform * len(phrasings))] if phrasings else ""


def _check_unicode(text: str) -> None:
    """Check that a text holds no halves of characters, which broken terminals and files leave."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ContractError(f"the prompt {text!r} is not valid Unicode text.") from error


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
