"""Tower: a small head on a frozen EfficientNet-Lite, trained to find the texts of images.

The head puts pooled features of an image and the pooled vector of a text by a frozen encoder into
one space, as CLIP does (Radford et al. 2021, arXiv 2103.00020). It is trained for one kind of
picture and says nothing about others. benchmarks/alignment_tower.py trains one.

A tower is a folder with `alignment.json` and `alignment.safetensors`; the weights of EfficientNet
and of the text encoder are in their packages.

Shapes: B images, S pixels of a side, M texts, F features, P width of a text's pooled vector, E
width of an embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cascade.errors import WeightsError
from cascade.resizing import quantise, resize
from cascade.text.encoder import EncoderFacts
from cascade.text.encoders import encoder_of
from cascade.vision.efficientnet import EfficientNetLite, load_efficientnet
from cascade.vision.encoder import VisionEncoder, VisionFacts

CONFIG = "alignment.json"
WEIGHTS = "alignment.safetensors"
FILES = (CONFIG, WEIGHTS)
MAX_TOKENS = 64
TAPPED = (1, 2, 3)  # groups of blocks whose statistics show colours, outlines and shading


@dataclass(frozen=True, kw_only=True)
class TowerFacts:
    """What is known about a tower besides its weights.

    Attributes:
        name: names the tower in recipes and in figures.
        encoder: name, hash and widths of the text encoder.
        size_px: side to which images are resized for EfficientNet.
        width: width E of an embedding.
        training: what it was trained on, in words.
        seen_px: side to which images are resized before that, so that a picture has one embedding
            at any size; None to keep all detail.
        trained_on: keys of the pictures that it was trained on.
        contrasts: the words that differ between captions, by value of an annotation, by annotation:
            `{"style": {"noto": "noto", "fluent-flat": "fluent flat"}}`.
    """

    name: str
    encoder: EncoderFacts
    size_px: int
    width: int
    training: str
    seen_px: int | None = None
    trained_on: tuple[str, ...] = ()
    contrasts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class TowerHead(nn.Module):
    """The trained part.

    Args:
        features: number F of features of an image.
        pooled_width: width P of a text's pooled vector.
        width: width E of an embedding.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, features: int, pooled_width: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.image = nn.Linear(features, width)
        self.text = nn.Linear(pooled_width, width)

    def embed_features(self, features: Tensor) -> Tensor:
        """Embed features (B, F) of images: (B, E) of length 1."""
        return F.normalize(self.image((features - self.mean) / self.spread), dim=-1)

    def embed_pooled(self, pooled: Tensor) -> Tensor:
        """Embed pooled vectors (M, P) of texts: (M, E) of length 1."""
        return F.normalize(self.text(pooled), dim=-1)


def tower_features(network: EfficientNetLite, images: Tensor) -> Tensor:
    """Compute what the head of a tower sees.

    Args:
        network: the frozen classifier.
        images: (B, 3, S, S) in [-1, 1].

    Returns:
        (B, F): the pooled features, and mean and spread of the channels of early feature maps.
    """
    taps = network.taps(images)
    early = [part for number in TAPPED for part in _statistics(taps[number])]
    return torch.cat([network.pooled(taps[-1]), *early], dim=1)


def _statistics(taps: Tensor) -> tuple[Tensor, Tensor]:
    return taps.mean(dim=(2, 3)), taps.std(dim=(2, 3))


@final
class Tower(VisionEncoder):
    """A trained tower.

    Args:
        facts: name, text encoder and training.
        head: the trained head.
        network: the frozen classifier.
    """

    network: nn.ModuleDict

    def __init__(self, facts: TowerFacts, head: TowerHead, network: EfficientNetLite) -> None:
        self.tower_facts = facts
        self.network = nn.ModuleDict({"head": head, "network": network}).eval()
        self.network.requires_grad_(False)

    @cached_property
    def facts(self) -> VisionFacts:
        return _vision_facts(self.tower_facts, self.head_state())

    @property
    def seen_px(self) -> int:
        return self.tower_facts.seen_px or self.tower_facts.size_px

    def to(self, device: torch.device) -> None:
        self.network.to(device)

    @torch.no_grad()
    def directions(self, seen: Tensor) -> Tensor:
        side, device = self.tower_facts.size_px, self._head.mean.device
        resized = resize(quantise(seen.to(device)), (side, side), "bicubic")
        return self._head.embed_features(tower_features(self._network, resized))

    @torch.no_grad()
    def text_directions(self, texts: Sequence[str]) -> Tensor:
        """Embed texts: (M, E) float32 of length 1."""
        encoded = encoder_of(self.tower_facts.encoder).encode(texts, MAX_TOKENS)
        pooled = torch.stack([each.pooled for each in encoded]).float()
        return self._head.embed_pooled(pooled.to(self._head.mean.device))

    def head_state(self) -> dict[str, Tensor]:
        """The weights of the head as files hold them, in bfloat16 on the CPU."""
        state = self._head.state_dict()
        return {name: each.cpu().bfloat16().contiguous() for name, each in state.items()}

    def write(self, folder: Path) -> None:
        """Write the tower into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.head_state(), folder / WEIGHTS)
        text = json.dumps(asdict(self.tower_facts), ensure_ascii=False) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")

    @property
    def _head(self) -> TowerHead:
        head = self.network["head"]
        assert isinstance(head, TowerHead)
        return head

    @property
    def _network(self) -> EfficientNetLite:
        network = self.network["network"]
        assert isinstance(network, EfficientNetLite)
        return network


def load_tower(folder: Path) -> Tower:
    """Load the tower in a folder.

    Raises:
        WeightsError: if it is damaged, or EfficientNet's weights are not installed.
    """
    facts = _read_facts(folder)
    state = {name: each.float() for name, each in _read_state(folder).items()}
    try:
        features = len(state["mean"])
        head = TowerHead(features, facts.encoder.pooled_width, facts.width)
        head.load_state_dict(state)
    except (LookupError, RuntimeError) as error:
        raise WeightsError(f"{folder / WEIGHTS}: not the weights of a tower ({error}).") from error
    return Tower(facts, head, load_efficientnet("lite0"))


def vision_facts(folder: Path) -> VisionFacts:
    """Name, hash and width of the tower in a folder, without EfficientNet.

    Raises:
        WeightsError: if the tower is damaged.
    """
    return _vision_facts(_read_facts(folder), _read_state(folder))


def _vision_facts(facts: TowerFacts, state: Mapping[str, Tensor]) -> VisionFacts:
    digest = hashlib.sha256(f"{facts.size_px} px of {facts.seen_px}".encode())
    for name, each in sorted(state.items()):
        digest.update(name.encode())
        digest.update(each.flatten().view(torch.uint8).numpy().tobytes())
    return VisionFacts(facts.name, digest.hexdigest(), facts.width)


def _read_state(folder: Path) -> dict[str, Tensor]:
    try:
        return load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{folder / WEIGHTS}: not the weights of a tower ({error}).") from error


def _read_facts(folder: Path) -> TowerFacts:
    try:
        values: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        encoder, keys = EncoderFacts(**values["encoder"]), tuple(values["trained_on"])
        return TowerFacts(**{**values, "encoder": encoder, "trained_on": keys})
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"{folder / CONFIG} does not describe a tower: {error}.") from error
