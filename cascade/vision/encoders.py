"""Finds encoders of images by name."""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from pathlib import Path

import torch

from cascade.errors import ContractError
from cascade.vision.clip import ClipVision
from cascade.vision.encoder import VisionEncoder, VisionFacts
from cascade.vision.tower import CONFIG, FILES, load_tower, vision_facts

SEARCH = "CASCADE_VISION_ENCODERS"  # environment variable with folders that hold encoders
CLIP_CONFIG = "config.json"
BUNDLED = Path(__file__).parent / "towers"

# folders that were named in full, or that stages carry, by name and hash of the encoder
_opened: dict[tuple[str, str], Path] = {}


def find_vision_encoder(name: str) -> VisionEncoder:
    """Find an encoder of images.

    A contract must not name a place on one machine. An encoder in a folder is therefore called by
    the name that it states, and is found again in the folders that the environment variable
    `CASCADE_VISION_ENCODERS` lists. A trained stage carries its tower. If several encoders have one
    name, `vision_encoder_of` finds the one that a contract means.

    Args:
        name: `emoji-tower` for the one that comes with the package; a folder with a tower that
            `benchmarks/alignment_tower.py` trained or a CLIP that transformers wrote; or the name
            of such a folder in one of `CASCADE_VISION_ENCODERS`.

    Raises:
        CascadeError: if there is no such encoder; the message says how to get it.
    """
    place = _found_folder(name)
    encoder = _load(place)
    _opened[encoder.facts.name, encoder.facts.sha256] = place
    return encoder


def find_vision_facts(name: str) -> VisionFacts:
    """Name, hash and width of an encoder; the network of a tower need not be installed.

    Args:
        name: see `find_vision_encoder`.

    Raises:
        CascadeError: if there is no such encoder; the message says how to get it.
    """
    place = _found_folder(name)
    if not (place / CONFIG).is_file():
        return find_vision_encoder(name).facts
    facts = vision_facts(place)
    _opened[facts.name, facts.sha256] = place
    return facts


@lru_cache
def vision_encoder_of(facts: VisionFacts) -> VisionEncoder:
    """The encoder that a contract names.

    Raises:
        CascadeError: if it cannot be found, or has other weights than those of `facts`.
    """
    place = _opened_folder(facts)
    encoder = find_vision_encoder(facts.name) if place is None else _load(place)
    if encoder.facts != facts:
        raise ContractError(
            f"image encoder {facts.name!r} must be {_words(facts)}, as in training, but the one "
            f"here is {_words(encoder.facts)}."
        )
    return encoder


def remember_folder(facts: VisionFacts, folder: Path) -> None:
    """Let the tower that a stage carries be found, if there is one in the folder."""
    if (folder / CONFIG).is_file():
        _opened[facts.name, facts.sha256] = folder


def copy_tower(facts: VisionFacts, folder: Path) -> None:
    """Copy a tower into a new folder; do nothing if it is not on this machine, or is no tower."""
    place = _opened_folder(facts) or _folder_of(facts.name)
    if place is None or not (place / CONFIG).is_file() or vision_facts(place) != facts:
        return
    folder.mkdir()
    for name in FILES:
        shutil.copyfile(place / name, folder / name)


def bundled_names() -> list[str]:
    """The names of the towers that come with the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}"))


def _load(place: Path) -> VisionEncoder:
    with torch.device("cpu"):  # even if a stage is built on the meta device
        return load_tower(place) if (place / CONFIG).is_file() else ClipVision(place)


def _found_folder(name: str) -> Path:
    """The folder of an encoder on this machine.

    Raises:
        ContractError: if there is none.
    """
    place = _folder_of(name)
    if place is None:
        raise ContractError(
            f"no image encoder {name!r}: it must be a bundled tower ({', '.join(bundled_names())}),"
            " a folder with a tower or a CLIP, or the name of a folder in one of those that the "
            f"environment variable {SEARCH} lists."
        )
    return place


def _opened_folder(facts: VisionFacts) -> Path | None:
    """The folder of exactly this encoder, if it was opened before and is still there."""
    place = _opened.get((facts.name, facts.sha256))
    return place if place is not None and _is_encoder(place) else None


def _folder_of(name: str) -> Path | None:
    """The folder of an encoder on this machine, if there is one."""
    parts = os.environ.get(SEARCH, "").split(os.pathsep)
    places = [
        Path(name).expanduser(),
        *(Path(part).expanduser() / name for part in parts if part),
        BUNDLED / name,
        *(place for (other, _), place in reversed(_opened.items()) if other == name),
    ]
    return next((place for place in places if _is_encoder(place)), None)


def _is_encoder(place: Path) -> bool:
    try:
        return (place / CONFIG).is_file() or (place / CLIP_CONFIG).is_file()
    except OSError:  # not a possible file name
        return False


def _words(facts: VisionFacts) -> str:
    return f"{facts.width} wide with weights {facts.sha256[:12]}"
