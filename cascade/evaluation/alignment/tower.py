"""AlignmentTower: a small head on a frozen EfficientNet-Lite, trained to find texts.

The head puts pooled features of an image and the pooled vector of a text by a frozen encoder into
one space, as CLIP does (Radford et al. 2021, arXiv 2103.00020). It is trained for one kind of
picture and says nothing about others. benchmarks/alignment_tower.py trains one.

A tower is a folder with `alignment.json` and `alignment.safetensors`; the weights of EfficientNet
and of the text encoder are in their packages.

Shapes: B images, M texts, F features, P width of a text's pooled vector, E width of an embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cascade.errors import WeightsError
from cascade.evaluation.alignment.model import AlignmentModel
from cascade.networks.efficientnet import EfficientNetLite, load_efficientnet
from cascade.resizing import quantise, resize
from cascade.saving.atomic import atomic_file
from cascade.saving.components import read_json, weights_digest
from cascade.text.encoder import EncoderFacts
from cascade.text.encoders import encoder_of

CONFIG = "alignment.json"
WEIGHTS = "alignment.safetensors"
MAX_TOKENS = 64
TAPPED = (1, 2, 3)  # groups of blocks whose statistics show colours, outlines and shading


@dataclass(frozen=True, kw_only=True)
class TowerFacts:
    """What is known about a tower besides its weights.

    Attributes:
        name: part of the names of figures.
        encoder: name, hash and widths of the text encoder.
        size_px: side to which images are resized.
        width: width E of an embedding.
        training: what it was trained on, in words.
        trained_on: see `AlignmentModel`.
        contrasts: see `AlignmentModel`.
    """

    name: str
    encoder: EncoderFacts
    size_px: int
    width: int
    training: str
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
class AlignmentTower(AlignmentModel):
    """A trained tower.

    Args:
        facts: name, text encoder and training.
        head: the trained head.
        network: the frozen classifier.
    """

    network: nn.ModuleDict

    def __init__(self, facts: TowerFacts, head: TowerHead, network: EfficientNetLite) -> None:
        self.facts = facts
        self.network = nn.ModuleDict({"head": head, "network": network}).eval()
        self.network.requires_grad_(False)
        self.name = facts.name
        self.resizing = f"antialiased bicubic to {facts.size_px} px"
        self.trained_on = facts.trained_on
        self.contrasts = facts.contrasts

    @torch.no_grad()
    def image_embeddings(self, images: Tensor) -> Tensor:
        side = self.facts.size_px
        resized = resize(quantise(images), (side, side), "bicubic")
        return self._head.embed_features(tower_features(self._network, resized))

    @torch.no_grad()
    def text_embeddings(self, texts: Sequence[str]) -> Tensor:
        encoded = encoder_of(self.facts.encoder).encode(texts, MAX_TOKENS)
        pooled = torch.stack([each.pooled for each in encoded]).float()
        return self._head.embed_pooled(pooled.to(self._head.mean.device))

    def fingerprint(self) -> str:
        basis = [json.dumps(asdict(self.facts), sort_keys=True), weights_digest(self.network)]
        return hashlib.sha256("\n".join(basis).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the tower into a folder.

        Raises:
            OutputError: if a file cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: each.bfloat16() for name, each in self._head.state_dict().items()}
        with atomic_file(folder / WEIGHTS) as temporary:
            save_file({name: each.contiguous() for name, each in state.items()}, temporary)
        with atomic_file(folder / CONFIG) as temporary:
            text = json.dumps(asdict(self.facts), ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")

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


def load_tower(folder: Path) -> AlignmentTower:
    """Load the tower in a folder.

    Raises:
        WeightsError: if it is damaged, or EfficientNet's weights are not installed.
    """
    facts = _facts(folder)
    try:
        state = {name: each.float() for name, each in load_file(folder / WEIGHTS).items()}
        features = len(state["mean"])
        head = TowerHead(features, facts.encoder.pooled_width, facts.width)
        head.load_state_dict(state)
    except (OSError, SafetensorError, LookupError, RuntimeError) as error:
        raise WeightsError(f"{folder / WEIGHTS}: not the weights of a tower ({error}).") from error
    return AlignmentTower(facts, head, load_efficientnet("lite0"))


def _facts(folder: Path) -> TowerFacts:
    values: Any = read_json(folder / CONFIG)
    try:
        encoder, keys = EncoderFacts(**values["encoder"]), tuple(values["trained_on"])
        return TowerFacts(**{**values, "encoder": encoder, "trained_on": keys})
    except (LookupError, TypeError) as error:
        raise WeightsError(f"{folder / CONFIG} does not describe a tower: {error}.") from error
