"""The embedding of an image as a condition, as in the decoder of unCLIP (DALL-E 2).

Ramesh et al. 2022, arXiv 2204.06125. A frozen encoder turns an image into a vector that says what
it shows and how, but not where each pixel is. A prior stage makes such vectors from texts; the
picture of a user gives one as well, from which the stage draws variations of the picture.

Shapes: B batch, C channels, H and W pixels, E width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.arguments import shown
from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition, Vocabulary
from cascade.conditioning.inputs import Inputs, Request
from cascade.conditioning.signals import Signals, TokenSignal
from cascade.conditioning.slots import Dense, Slots
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.reporting.words import counted
from cascade.space import Size, Space
from cascade.vision.encoder import VisionFacts, check_embeddings
from cascade.vision.encoders import (
    copy_tower,
    find_vision_facts,
    remember_folder,
    vision_encoder_of,
)
from cascade.vision.tower import FILES as TOWER_FILES

TOWER = "vision"  # folder of the encoder in that of a stage
SPREAD = 4  # tokens for an embedding, as in the paper, so that attention can choose among them


@dataclass(frozen=True, kw_only=True)
class ImageEmbeddingOptions:
    """The recipe section of the image embedding; see `ImageEmbedding`.

    Attributes:
        encoder: the encoder: `emoji-tower`, a folder with a tower or a CLIP, or the name of such a
            folder.
    """

    encoder: str
    drop: float = 0.1


@final
@dataclass(frozen=True, kw_only=True)
class ImageEmbedding(Condition):
    """The embedding of the whole image: the result of a prior stage, or of a user's image.

    Attributes:
        encoder: name of the encoder.
        sha256: hash of the encoder's weights.
        width: width E of an embedding.
        drop: probability in [0, 1] that training hides the embedding of an image, which
            classifier-free guidance needs.

    Raises:
        ContractError: if a value is out of range.
    """

    name = "image_embedding"
    input_name = "like"
    recipe = ImageEmbeddingOptions
    files = tuple(f"{TOWER}/{name}" for name in TOWER_FILES)

    encoder: str
    sha256: str
    width: int
    drop: float = 0.1

    @classmethod
    def of_recipe(cls, options: ImageEmbeddingOptions, vocabulary: Vocabulary) -> ImageEmbedding:
        return cls.of_encoder(**asdict(options))

    @classmethod
    def of_encoder(cls, encoder: str, *, drop: float = 0.1) -> ImageEmbedding:
        """Make the condition for an encoder on this machine.

        Args:
            encoder: names the encoder; see `cascade.vision.encoders.find_vision_encoder`.
            drop: see `ImageEmbedding`.

        Raises:
            CascadeError: if the encoder cannot be found, or a value is out of range.
        """
        facts = find_vision_facts(encoder)
        return cls(encoder=facts.name, sha256=facts.sha256, width=facts.width, drop=drop)

    @property
    def encoder_facts(self) -> VisionFacts:
        """Name, hash and width of the encoder."""
        return VisionFacts(self.encoder, self.sha256, self.width)

    def facts(self) -> dict[str, str]:
        return {"image encoder": self.encoded_by}

    @property
    def encoded_by(self) -> str:
        return f"{self.encoder}, weights {self.sha256[:12]}"

    def slots(self, space: Space) -> Slots:
        return Slots(vector=Dense(self.width), tokens=self.width, spread=SPREAD)

    def image_space(self, space: Space) -> Space:
        return self.encoded_space

    def description(self, space: Space) -> str:
        return f"embedding of {self.encoder}"

    @property
    def encoded_space(self) -> Space:
        return self.encoder_facts.space

    # ---- files in the folder of a stage ---------------------------------------------------------

    def write_files(self, folder: Path) -> None:
        copy_tower(self.encoder_facts, folder / TOWER)  # a CLIP would be too large

    def with_files(self, folder: Path) -> ImageEmbedding:
        remember_folder(self.encoder_facts, folder / TOWER)
        return self

    # ---- training and sampling ------------------------------------------------------------------

    def of_batch(self, batch: Batch, space: Space, noise: SeededNoise) -> Signals:
        signals = self._signals(self.input_of(batch, space))
        return signals.replaced(noise.uniform().view(-1) < self.drop, self.absent(signals))

    def of_request(self, request: Request) -> Signals:
        values = self._embeddings(request.inputs, request.previous)
        return self._signals(values.to(request.device))

    def absent(self, signals: Signals) -> Signals:
        vector, token = signals.vectors[self.name], signals.tokens[self.name]
        nothing = TokenSignal(torch.zeros_like(token.tokens), torch.zeros_like(token.mask))
        return Signals(vectors={self.name: torch.zeros_like(vector)}, tokens={self.name: nothing})

    def completed(self, value: Any, seeds: Sequence[int], *, draw: bool) -> Tensor | None:
        """The embeddings (B, E, 1, 1) of images, or embeddings as they are; one may stand for all.

        `value` is (1 or B, 1 or 3, h, w) in [-1, 1], or (1 or B, E, 1, 1).

        Raises:
            ContractError: for anything else, or embeddings of another width.
            CascadeError: if the encoder is needed and cannot be found.
        """
        if value is None:
            return None
        if not isinstance(value, Tensor) or value.ndim != 4:
            raise ContractError(
                f"{self.input_name} must be images (B, 3, h, w) or embeddings (B, {self.width}, 1, "
                f"1), got {shown(value)}."
            )
        if len(value) not in (1, len(seeds)):
            raise ContractError(
                f"got {counted(len(value), 'image')} as {self.input_name} for "
                f"{counted(len(seeds), 'result')}; give one for all, or one for each."
            )
        is_embedding = value.shape[2:] == (1, 1) and value.shape[1] != 3
        if is_embedding:
            embeddings = check_embeddings(value, self.encoder_facts)
        else:
            embeddings = vision_encoder_of(self.encoder_facts).encode(value)
        return embeddings.expand(len(seeds), -1, -1, -1)

    def result_size(self, inputs: Inputs, previous: Tensor | None, space: Space) -> Size | None:
        self._embeddings(inputs, previous)
        return None

    def input_of(self, batch: Batch, space: Space, *, degraded: bool = False) -> Tensor:
        """The embeddings (B, E, 1, 1), made from the images unless the batch has them."""
        embeddings = batch.conditions.get(self.name)
        if embeddings is None:
            embeddings = vision_encoder_of(self.encoder_facts).encode(batch.images)
        return check_embeddings(embeddings, self.encoder_facts).to(batch.images.device)

    def deviation(
        self, samples: Tensor, value: Any, space: Space, known: Tensor | None = None
    ) -> dict[str, float]:
        """The mean of 1 minus the cosine of the embeddings of samples and those asked for."""
        theirs = vision_encoder_of(self.encoder_facts).encode(samples.float())
        cosine = F.cosine_similarity(theirs.cpu().flatten(1), value.cpu().flatten(1))
        return {"embedding_distance": float(1 - cosine.mean())}

    def _embeddings(self, inputs: Inputs, previous: Tensor | None) -> Tensor:
        """The embeddings of one call: the previous stage's, or else those of the user."""
        values = inputs.get(self.input_name) if previous is None else previous
        if values is None:
            raise ContractError(
                f"this stage needs an image embedding of {self.encoder}: put a prior before it, "
                f"or give an image as {self.input_name!r}."
            )
        return check_embeddings(values, self.encoder_facts)

    def _signals(self, embeddings: Tensor) -> Signals:
        vectors = embeddings.flatten(1)  # (B, E)
        mask = torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device)
        token = TokenSignal(vectors[:, None], mask)  # (B, 1, E)
        return Signals(vectors={self.name: vectors}, tokens={self.name: token})
