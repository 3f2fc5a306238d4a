"""CachedVision: embeds an image only once, and remembers embeddings in memory and in files.

The key of an image is a hash of the pixels that the encoder sees, so files of other names or sizes
with the same pixels share an embedding.

Shapes: B images, H and W pixels, E width of an embedding.
"""

from __future__ import annotations

import atexit
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from cascade.errors import ContractError
from cascade.text.embedding_files import EmbeddingFiles
from cascade.text.encoder import EncodedText, EncoderFacts
from cascade.vision.encoder import VisionEncoder, VisionFacts, as_images

RECENT_IMAGES = 4096  # that are kept in memory
IMAGES_PER_FILE = 1024
MOST_UNSAVED_S = 20.0  # an interrupted run has to repeat no more than this


@final
class CachedVision:
    """An encoder that embeds an image only once.

    Args:
        facts: name, hash and width of the encoder.
        find: finds the encoder itself by name, when an image is embedded for the first time.
    """

    def __init__(self, facts: VisionFacts, find: Callable[[str], VisionEncoder]) -> None:
        self.facts = facts
        self._find = find
        self._encoder: VisionEncoder | None = None
        self._recent: OrderedDict[str, Tensor] = OrderedDict()
        self._unsaved: dict[str, Tensor] = {}
        self._files: EmbeddingFiles | None = None
        self._saved_s = time.monotonic()

    @property
    def live(self) -> VisionEncoder:
        """The encoder itself.

        Raises:
            CascadeError: if it cannot be found, or has other weights than those of `facts`.
        """
        if self._encoder is None:
            encoder = self._find(self.facts.name)
            if encoder.facts != self.facts:
                raise ContractError(
                    f"image encoder {self.facts.name!r} must be {_words(self.facts)}, as in "
                    f"training, but the one here is {_words(encoder.facts)}."
                )
            self._encoder = encoder
        return self._encoder

    def encode(self, images: Tensor) -> Tensor:
        """Embed images (B, 1 or 3, H, W) in [-1, 1]: (B, E, 1, 1) on the CPU, see `as_images`.

        Raises:
            CascadeError: if the encoder cannot be found, or the images are neither grey nor RGB.
        """
        seen = self.live.seen(images).cpu()
        keys = [_key(each) for each in seen]
        vectors = {key: self._recall(key) for key in keys}
        new = {key: place for place, key in enumerate(keys) if vectors[key] is None}
        if new:
            fresh = self.live.directions(seen[list(new.values())]).half().cpu()
            for key, vector in zip(new, fresh, strict=True):
                self._keep(key, vector)
                vectors[key] = vector
        return as_images(torch.stack([each for key in keys if (each := vectors[key]) is not None]))

    def keep_in(self, folder: Path) -> None:
        """Keep embeddings in files, and read those that an earlier run kept.

        Args:
            folder: folder of all encoders' embeddings.
        """
        facts = EncoderFacts(self.facts.name, self.facts.sha256, 1, self.facts.width)
        own = folder / self.facts.sha256[:24]
        if self._files is None or self._files.folder != own:
            self._files = EmbeddingFiles(own, facts)
            atexit.register(self.save)

    def save(self) -> None:
        """Write the embeddings that no file holds yet.

        Raises:
            OutputError: if the folder cannot be written to.
        """
        if self._files is not None and self._unsaved:
            texts = list(self._unsaved)
            encoded = [EncodedText(torch.zeros(0, 1).half(), self._unsaved[key]) for key in texts]
            with self._files.alone():
                self._files.write(texts, encoded)
            self._unsaved = {}
        self._saved_s = time.monotonic()

    def _recall(self, key: str) -> Tensor | None:
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        kept = None if self._files is None else self._files.get(key)
        return None if kept is None else kept.pooled

    def _keep(self, key: str, vector: Tensor) -> None:
        self._recent[key] = vector
        if len(self._recent) > RECENT_IMAGES:
            self._recent.popitem(last=False)
        if self._files is None:
            return
        self._unsaved[key] = vector
        is_late = time.monotonic() - self._saved_s > MOST_UNSAVED_S
        if len(self._unsaved) >= IMAGES_PER_FILE or is_late:
            self.save()


def _key(seen: Tensor) -> str:
    """A hash of an image (3, S, S) in [-1, 1] whose values are whole numbers of 8 bits."""
    pixels = ((seen + 1) * 127.5).round().to(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(pixels, digest_size=16).hexdigest()


def _words(facts: VisionFacts) -> str:
    return f"{facts.width} wide with weights {facts.sha256[:12]}"
