"""CachedEncoder: encodes a text only once, and remembers the embeddings in memory and in files."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import final

import torch

from cascade.errors import ContractError
from cascade.kept_files import KeptFiles
from cascade.reporting.words import counted
from cascade.text.embedding_files import embedding_files, tensors_of
from cascade.text.encoder import CPU, CutText, EncodedText, EncoderFacts, TextEncoder, empty_text

RECENT_TEXTS = 2048  # that are kept in memory
TEXTS_AT_ONCE = 1024
FILE_BYTES = 64 * 2**20  # an interrupted run has to repeat less than one file
LARGE_TEXTS = 2000  # from which on progress is logged
EXAMPLES = 3  # texts that a warning names
SHOWN_CHARACTERS = 40
logger = logging.getLogger(__name__)


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
        self._recent: OrderedDict[tuple[str, int], EncodedText] = OrderedDict()
        self._files: dict[int, list[KeptFiles[EncodedText]]] = {}  # by number of tokens

    @property
    def facts(self) -> EncoderFacts:
        return self._facts

    @property
    def tokenizer_sha256(self) -> str:
        return self._find(self._facts.name).tokenizer_sha256  # without a look at the weights

    @property
    def most_tokens(self) -> int | None:
        return self.live.most_tokens

    @property
    def ignores_case(self) -> bool:
        return self.live.ignores_case

    def encode(
        self, texts: Sequence[str], max_tokens: int, *, device: torch.device = CPU
    ) -> list[EncodedText]:
        texts = [text.strip() for text in texts]
        recalled = {text: self._recall(text, max_tokens) for text in texts}
        encoded = {text: each for text, each in recalled.items() if each is not None}
        unknown = [text for text in recalled if text not in encoded]
        if unknown:
            fresh = self.live.encode(unknown, max_tokens, device=device)
            encoded |= dict(zip(unknown, fresh, strict=True))
            self._recent.update({(text, max_tokens): encoded[text] for text in unknown})
            while len(self._recent) > RECENT_TEXTS:
                self._recent.popitem(last=False)
        return [encoded[text] for text in texts]

    def cut(self, text: str, max_tokens: int) -> CutText:
        return self.live.cut(text, max_tokens)

    @property
    def live(self) -> TextEncoder:
        """The encoder itself.

        Raises:
            CascadeError: if it cannot be found, or has other weights than those of `facts`.
        """
        if self._encoder is None:
            encoder = self._find(self._facts.name)
            if _weights(encoder.facts) != _weights(self._facts):
                raise ContractError(
                    f"text encoder {self._facts.name!r} must be {_words(self._facts)}, as in "
                    f"training, but the one here is {_words(encoder.facts)}."
                )
            self._encoder = encoder
        return self._encoder

    def encode_ahead(
        self,
        texts: Iterable[str],
        max_tokens: int,
        folder: Path,
        *,
        device: torch.device = CPU,
    ) -> None:
        """Write the embeddings of texts to files, unless an earlier call wrote them.

        Several processes may call this at the same time: one of them encodes.

        Args:
            texts: the texts.
            max_tokens: see `encode`.
            folder: folder of all encoders' embeddings.
            device: where to compute.

        Raises:
            CascadeError: if the encoder cannot be found, or the folder cannot be written to.
        """
        texts = {text.strip() for text in texts} - ({""} if not self._facts.padded else set())
        name = f"{self._facts.sha256[:24]}-{self.tokenizer_sha256[:12]}-{max_tokens}"
        name += "-padded" if self._facts.padded else ""
        files = embedding_files(folder / name, self._facts)
        if any(text not in files for text in texts):
            with files.alone():
                files.read()  # those that another process wrote meanwhile
                new = sorted((text for text in texts if text not in files), key=_by_length)
                self._write(new, max_tokens, files, device)
                self._report([self.live.cut(text, max_tokens) for text in new], max_tokens)
            self._encoder = None  # training needs the memory
        known = [each for each in self._files.get(max_tokens, []) if each.folder != files.folder]
        self._files[max_tokens] = [files, *known]

    def _write(
        self,
        texts: Sequence[str],
        max_tokens: int,
        files: KeptFiles[EncodedText],
        device: torch.device,
    ) -> None:
        total, is_large = len(texts), len(texts) >= LARGE_TEXTS
        if is_large:
            logger.info("encoding %s with %s", counted(total, "text"), self._facts.name)
        encoded: list[EncodedText] = []
        written = bytes_so_far = 0
        for first in range(0, total, TEXTS_AT_ONCE):
            part = texts[first : first + TEXTS_AT_ONCE]
            encoded += self.live.encode(part, max_tokens, device=device)
            bytes_so_far += sum(each.tokens.nbytes for each in encoded[first - written :])
            done = first + len(part)
            if bytes_so_far >= FILE_BYTES or done == total:
                files.write(texts[written:done], tensors_of(encoded))
                encoded, written, bytes_so_far = [], done, 0
                if is_large:
                    logger.info("encoded %s of %s", f"{done:,}", counted(total, "text"))

    def _report(self, cuts: Sequence[CutText], max_tokens: int) -> None:
        """Warn about texts that are too long, or have unknown words or letters: a line for each."""
        lost = [each.lost for each in cuts if each.lost]
        if lost:
            logger.warning(
                "%s have more than %s tokens, so their ends are cut off: %s",
                _share(len(lost), len(cuts)),
                max_tokens,
                _few(lost),
            )
        unknown = [each.unknown for each in cuts if each.unknown]
        if unknown:
            logger.warning(
                "%s have words that the text encoder %s does not know: %s",
                _share(len(unknown), len(cuts)),
                self._facts.name,
                _few(list(dict.fromkeys(word for words in unknown for word in words))),
            )
        foreign = [each for each in cuts if each.scripts]
        if foreign:
            logger.warning(
                "%s are mostly in letters that the text encoder %s does not read, which are all "
                "but %s: %s",
                _share(len(foreign), len(cuts)),
                self._facts.name,
                " and ".join(foreign[0].scripts),
                _few([each.kept for each in foreign]),
            )

    def _recall(self, text: str, max_tokens: int) -> EncodedText | None:
        """The embeddings of a text without the encoder; None if they are not known."""
        if not text and not self._facts.padded:
            return empty_text(self._facts)
        if (text, max_tokens) in self._recent:
            self._recent.move_to_end((text, max_tokens))
            return self._recent[text, max_tokens]
        kept = (files.get(text) for files in self._files.get(max_tokens, []))
        return next((each for each in kept if each is not None), None)


def _share(part: int, total: int) -> str:
    return f"{part:,} of {counted(total, 'new text')}"


def _few(texts: Sequence[str]) -> str:
    """The first texts of a list."""
    more = [f"and {len(texts) - EXAMPLES:,} more"] if len(texts) > EXAMPLES else []
    return ", ".join([*(repr(text[:SHOWN_CHARACTERS]) for text in texts[:EXAMPLES]), *more])


def _by_length(text: str) -> tuple[int, str]:
    return len(text), text


def _weights(facts: EncoderFacts) -> tuple[str, int, int]:
    return facts.sha256, facts.width, facts.pooled_width


def _words(facts: EncoderFacts) -> str:
    return f"{facts.width} wide with weights {facts.sha256[:12]}"
