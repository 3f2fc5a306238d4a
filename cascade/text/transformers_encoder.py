"""Text encoders of the library transformers: BERT and MiniLM, T5, and the text tower of CLIP.

Shapes: B texts, N tokens of a text, D width of a token, P width of a pooled vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.devices import free_memory
from cascade.errors import WeightsError, first_line
from cascade.extras import install_command
from cascade.text.encoder import CPU, CutText, EncodedText, EncoderFacts, TextEncoder, empty_text
from cascade.text.encoder_folder import EncoderFolder
from cascade.text.scripts import is_mostly_foreign

TEXTS_AT_ONCE = 64
CLIP = ("clip", "clip_text_model")
CLASSES = {  # AutoModel would load the decoder or the image tower too
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    **dict.fromkeys(CLIP, "CLIPTextModel"),
}


@final
class TransformersEncoder(TextEncoder):
    """An encoder in a folder that transformers wrote.

    Args:
        name: names it in recipes and contracts.
        folder: holds configuration, tokenizer and weights.
        padded: whether texts are padded; see `EncoderFacts`.
        scripts: the scripts that it was trained on, such as `Latin`; empty if that is not known.
    """

    def __init__(
        self,
        name: str,
        folder: EncoderFolder,
        *,
        padded: bool = False,
        scripts: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.folder = folder
        self.padded = padded
        self.scripts = tuple(scripts)

    @cached_property
    def facts(self) -> EncoderFacts:
        width = self.folder.width
        return EncoderFacts(self.name, self.folder.sha256, width, width, self.padded)

    @property
    def tokenizer_sha256(self) -> str:
        return self.folder.tokenizer_sha256

    @property
    def most_tokens(self) -> int | None:
        return self.folder.most_tokens

    @property
    def ignores_case(self) -> bool:
        if self.padded:
            return True
        normaliser = self._tokenizer.backend_tokenizer.normalizer
        return normaliser is not None and normaliser.normalize_str("aA") == "aa"

    @torch.no_grad()
    def encode(
        self, texts: Sequence[str], max_tokens: int, *, device: torch.device = CPU
    ) -> list[EncodedText]:
        texts = [self._readable(text) for text in texts]
        places = [place for place, text in enumerate(texts) if text or self.padded]
        places.sort(key=lambda place: len(texts[place]))  # so that little is padded
        encoded = [empty_text(self.facts)] * len(texts)
        # Embeddings must not depend on the precision of the training that asks for them.
        placed = self._placed_on(device) if places else nullcontext()
        with placed, torch.autocast(device.type, enabled=False):
            for first in range(0, len(places), TEXTS_AT_ONCE):
                part = places[first : first + TEXTS_AT_ONCE]
                batch = self._tokenized([texts[place] for place in part], max_tokens, device)
                for place, each in zip(part, self._encode(batch), strict=True):
                    encoded[place] = each
        return encoded

    def cut(self, text: str, max_tokens: int) -> CutText:
        text = self._readable(text)
        options = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
        tokens = self._tokenizer(text, truncation=False, verbose=False, **options)
        marks = tokens["special_tokens_mask"]
        places = zip(tokens["offset_mapping"], tokens["input_ids"], marks, strict=True)
        pieces = [(start, end, number) for (start, end), number, is_mark in places if not is_mark]
        kept = pieces[: max_tokens - sum(marks)]
        no_piece = self._tokenizer.unk_token_id
        unknown = dict.fromkeys(text[start:end] for start, end, i in kept if i == no_piece)
        stop = max((end for _, end, _ in kept), default=0)
        whole = len(kept) == len(pieces)
        first, rest = (text, "") if whole else (text[:stop].rstrip(), text[stop:].strip())
        foreign = bool(self.scripts) and is_mostly_foreign(first, self.scripts)
        return CutText(first, rest, tuple(unknown), self.scripts if foreign else ())

    def _readable(self, text: str) -> str:
        """The text without spaces at both ends, and without halves of UTF-16 characters.

        A padded text is in lower case, as in the training of DeepFloyd IF: T5 tells cases apart.
        """
        text = text.encode("utf-8", "replace").decode().strip()
        return text.lower() if self.padded else text

    # ---- the model ------------------------------------------------------------------------------

    def _tokenized(self, texts: Sequence[str], max_tokens: int, device: torch.device) -> Any:
        return self._tokenizer(
            texts,
            truncation=True,
            max_length=max_tokens,
            padding="max_length" if self.padded else True,
            return_tensors="pt",
        ).to(device)

    def _encode(self, batch: Any) -> Iterator[EncodedText]:
        mask = batch["attention_mask"]  # (B, N)
        output = self._model(input_ids=batch["input_ids"], attention_mask=mask)
        tokens = output.last_hidden_state  # (B, N, D)
        is_clip = self.folder.kind in CLIP
        pooled = output.pooler_output if is_clip else _mean(tokens, mask)
        pooled = F.normalize(pooled, dim=-1) * pooled.shape[-1] ** 0.5  # root mean square of 1
        tokens, pooled, mask = tokens.half().cpu(), pooled.half().cpu(), mask.bool().cpu()
        for each, own, vector in zip(tokens, mask, pooled, strict=True):
            yield EncodedText(each if self.padded else each[own], vector)

    @contextmanager
    def _placed_on(self, device: torch.device) -> Iterator[None]:
        """Keep the model on a device during a `with`, and on the CPU after it."""
        if device.type == "cpu":
            yield
            return
        try:
            self._model.to(device)
            yield
        finally:
            self._model.to("cpu")
            free_memory(device)

    @cached_property
    def _tokenizer(self) -> Any:
        if not self.folder.has_tokenizer:
            raise WeightsError(f"the text encoder in {self.folder.path} has no tokenizer.json.")
        with self._loading() as transformers:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                self.folder.tokenizer_path, local_files_only=True, trust_remote_code=False
            )
        if not tokenizer.is_fast:  # only these tell which characters a token stands for
            raise WeightsError(
                f"the text encoder in {self.folder.path} has no fast tokenizer; save it with its "
                "tokenizer.json."
            )
        if tokenizer.pad_token is None:
            raise WeightsError(
                f"the tokenizer in {self.folder.tokenizer_path} has no padding token."
            )
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        return tokenizer

    @cached_property
    def _model(self) -> Any:
        with self._loading() as transformers:
            model_class = getattr(transformers, CLASSES.get(self.folder.kind, "AutoModel"))
            model, report = model_class.from_pretrained(
                self.folder.path,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        lacking = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
        if lacking:  # transformers fills them with random numbers
            raise WeightsError(
                f"the text encoder in {self.folder.path} lacks the weights {lacking[0]!r}; its "
                "files are of another model."
            )
        return model.float().eval().requires_grad_(False)

    @contextmanager
    def _loading(self) -> Iterator[Any]:
        """Yield the library, silenced; its errors become one line.

        Raises:
            WeightsError: if it is not installed, or cannot load the files.
        """
        try:
            import transformers
            from transformers.utils import logging as its_logging
        except ImportError as error:
            raise WeightsError(
                f"the text encoder {self.name} needs transformers; run {install_command('text')}."
            ) from error
        before = its_logging.get_verbosity(), its_logging.is_progress_bar_enabled()
        its_logging.set_verbosity_error()
        its_logging.disable_progress_bar()
        try:
            yield transformers
        except Exception as error:  # from damaged files to missing packages and unknown models
            raise WeightsError(
                f"the text encoder in {self.folder.path} cannot be loaded ({first_line(error)})."
            ) from error
        finally:
            its_logging.set_verbosity(before[0])
            if before[1]:
                its_logging.enable_progress_bar()


def _mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean of each text's tokens, (B, D)."""
    weight = mask[..., None].to(tokens.dtype)
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1)
