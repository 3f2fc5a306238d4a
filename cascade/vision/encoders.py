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
from cascade.vision.tower import CONFIG, WEIGHTS, load_tower, vision_facts

SEARCH = "CASCADE_VISION_ENCODERS"  # environment variable with folders that hold encoders
CLIP_CONFIG = "config.json"
BUNDLED = Path(__file__).parent / "towers"

_opened: dict[str, Path] = {}  # folders that were named in full or loaded, by the encoder's name


def find_vision_encoder(name: str) -> VisionEncoder:
    """Find an encoder of images.

    A contract must not name a place on one machine. An encoder in a folder is therefore called by
    the name that it states, and is found again in the folders that the environment variable
    `CASCADE_VISION_ENCODERS` lists. A trained stage carries its tower, which is found by name too.

    Args:
        name: `emoji-tower` for the one that comes with the package; a folder with a tower that
            `benchmarks/alignment_tower.py` trained or a CLIP that transformers wrote; or the name
            of such a folder in one of `CASCADE_VISION_ENCODERS`.

    Raises:
        CascadeError: if there is no such encoder; the message says how to get it.
    """
    place = _found_folder(name)
    with torch.device("cpu"):  # even if a stage is built on the meta device
        encoder = load_tower(place) if (place / CONFIG).is_file() else ClipVision(place)
    _opened[encoder.facts.name] = place
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
    _opened[facts.name] = place
    return facts


@lru_cache
def vision_encoder_of(facts: VisionFacts) -> VisionEncoder:
    """The encoder that a contract names.

    Raises:
        CascadeError: if it cannot be found, or has other weights than those of `facts`.
    """
    encoder = find_vision_encoder(facts.name)
    if encoder.facts != facts:
        raise ContractError(
            f"image encoder {facts.name!r} must be {_words(facts)}, as in training, but the one "
            f"here is {_words(encoder.facts)}."
        )
    return encoder


def remember_folder(name: str, folder: Path) -> None:
    """Let an encoder be found in a folder by its name, unless it is known already."""
    if (folder / CONFIG).is_file() and _folder_of(name) is None:
        _opened[name] = folder


def copy_tower(facts: VisionFacts, folder: Path) -> None:
    """Copy a tower into a new folder; do nothing if it is not on this machine, or is no tower."""
    place = _folder_of(facts.name)
    if place is None or not (place / CONFIG).is_file() or vision_facts(place) != facts:
        return
    folder.mkdir()
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(place / name, folder / name)


def bundled_names() -> list[str]:
    """The names of the towers that come with the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}"))


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


def _folder_of(name: str) -> Path | None:
    """The folder of an encoder on this machine, if there is one."""
    parts = os.environ.get(SEARCH, "").split(os.pathsep)
    places = [
        Path(name).expanduser(),
        *([_opened[name]] if name in _opened else []),
        *(Path(part).expanduser() / name for part in parts if part),
        BUNDLED / name,
    ]
    return next((place for place in places if _is_encoder(place)), None)


def _is_encoder(place: Path) -> bool:
    try:
        return (place / CONFIG).is_file() or (place / CLIP_CONFIG).is_file()
    except OSError:  # not a possible file name
        return False


def _words(facts: VisionFacts) -> str:
    return f"{facts.width} wide with weights {facts.sha256[:12]}"
