"""The folder of a text encoder, as transformers writes it: configuration, tokenizer and weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, final

from cascade.errors import ContractError, WeightsError, first_line

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
TOKENIZER_FILES = [
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "sentencepiece*",
]
HUB_FILES = [CONFIG, WEIGHTS, INDEX, "model-*-of-*.safetensors", *TOKENIZER_FILES]
# Models that count positions from behind the number of their padding token.
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")


@final
class EncoderFolder:
    """A text encoder on disk.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def has_weights(self) -> bool:
        """Whether the weights are there, as safetensors."""
        return (self.path / WEIGHTS).is_file() or (self.path / INDEX).is_file()

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer is there; transformers would make an empty one."""
        return _holds_tokenizer(self.tokenizer_path)

    @property
    def tokenizer_path(self) -> Path:
        """The folder of the tokenizer: this one, or `tokenizer` beside it in diffusers' layout."""
        beside = self.path.parent / "tokenizer"
        return beside if not _holds_tokenizer(self.path) and _holds_tokenizer(beside) else self.path

    @property
    def stated_name(self) -> str:
        """A name that does not depend on this machine.

        It is the name on the Hub that the configuration states, or else the folder's own.
        """
        stated = str(self._all_values.get("_name_or_path", ""))
        return stated if HUB_NAME.fullmatch(stated) else self.path.resolve().name

    @property
    def kind(self) -> str:
        """The architecture, such as `bert`; of a CLIP model, `clip`."""
        return str(self._all_values.get("model_type", ""))

    @property
    def width(self) -> int:
        """Width of a token.

        Raises:
            WeightsError: if the configuration does not state it.
        """
        for name in ("hidden_size", "d_model", "dim"):
            if isinstance(self.values.get(name), int):
                return self.values[name]
        raise WeightsError(f"{self.path / CONFIG} does not describe a text encoder.")

    @property
    def most_tokens(self) -> int | None:
        """The largest number of tokens that the model can read; None if there is no limit."""
        positions = self.values.get("max_position_embeddings")
        if not isinstance(positions, int):
            return None
        if self.kind in OFFSET_POSITIONS:
            positions -= 1 + int(self.values.get("pad_token_id") or 0)
        tokenizer = self.tokenizer_path / "tokenizer_config.json"
        limit = _read_json(tokenizer).get("model_max_length") if tokenizer.is_file() else None
        return min(positions, int(limit)) if isinstance(limit, int | float) else positions

    @property
    def values(self) -> Mapping[str, Any]:
        """The configuration of the text part."""
        return self._all_values.get("text_config") or self._all_values

    @cached_property
    def _all_values(self) -> Mapping[str, Any]:
        return _read_json(self.path / CONFIG)

    @property
    def weight_files(self) -> list[Path]:
        """The files of weights, in the order of their names.

        Raises:
            WeightsError: if one is missing, or there are only pickled weights.
        """
        if (self.path / WEIGHTS).is_file():
            return [self.path / WEIGHTS]
        if not (self.path / INDEX).is_file():
            raise WeightsError(
                f"the text encoder in {self.path} has no {WEIGHTS}; convert its weights to "
                "safetensors, because pickled ones can run code when loaded."
            )
        shards = _read_json(self.path / INDEX).get("weight_map", {})
        files = [self.path / str(name) for name in sorted(set(shards.values()))]
        lacking = next((file for file in files if not file.is_file()), None)
        if lacking is not None or not files:
            name = INDEX if lacking is None else lacking.name
            raise WeightsError(f"the text encoder in {self.path} is incomplete: {name} is missing.")
        return files

    @cached_property
    def sha256(self) -> str:
        """Hash of the weights: that of the file, or a hash of the hashes of several files."""
        hashes = [_sha256_of(path) for path in self.weight_files]
        if len(hashes) == 1:
            return hashes[0]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Hash of the names and the hashes of the tokenizer's files."""
        places = {path for each in TOKENIZER_FILES for path in self.tokenizer_path.glob(each)}
        lines = [f"{path.name} {_sha256_of(path)}\n" for path in sorted(places) if path.is_file()]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _holds_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZERS)


def download(name: str) -> Path:
    """Find an encoder of the Hub in the Hub's cache, or download its safetensors and tokenizer.

    Args:
        name: name of the repository, such as `google/t5-v1_1-base`.

    Raises:
        ContractError: if it can neither be found nor downloaded.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=True))
        encoder = EncoderFolder(folder)
        if encoder.has_weights and encoder.has_tokenizer:  # another program may have left some out
            return folder
    except Exception:  # the Hub raises many kinds when a name is not in its cache
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except Exception as error:
        raise ContractError(
            f"the text encoder {name!r} is neither a folder here nor available on the Hub "
            f"({first_line(error)})."
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is missing or not valid JSON; fetch it again.") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path} must hold a JSON object.")
    return values
