"""Latents of training images, which a frozen encoder makes once and a cache keeps by content.

The latents of an image are found by a hash of its file, so that a renamed or moved image is not
encoded again, and a changed one is. Encoder, size and reading of the images decide the folder.

Shapes: B images, C channels, H and W pixels; c channels of the latents, h and w their size.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from cascade.data.band_decoding import BandDecoding
from cascade.data.fitting import as_float
from cascade.data.source import ImageSource
from cascade.data.tensors import TensorSource
from cascade.data.training_images import TrainingImages
from cascade.errors import DataError
from cascade.reporting.words import counted
from cascade.space import Space
from cascade.text.embedding_files import EmbeddingFiles
from cascade.text.encoder import EncodedText, EncoderFacts

Coder = Callable[[Tensor], Tensor]
AT_A_TIME = 8
IMAGES_IN_A_FILE = 512  # an interrupted run repeats fewer than these
LOGGED_IMAGES = 2048  # between two lines about progress
logger = logging.getLogger(__name__)


@final
class EncodedImages:
    """The latents of training images.

    Args:
        pictures: the images at the size that the encoder takes, neither cropped nor mirrored.
        space: space of the latents, which names the encoder.
        encode: makes latents (B, c, h, w) of images (B, C, H, W) in [-1, 1].
        decode: makes images (B, C, H, W) of latents (B, c, h, w).
        cache: folder of the caches of all encoders.

    Raises:
        OutputError: if the cache cannot be written.
    """

    def __init__(
        self, pictures: TrainingImages, space: Space, encode: Coder, decode: Coder, cache: Path
    ) -> None:
        self.pictures = pictures
        self.space = space
        self.decode = decode
        self._encode = encode
        self._keys = [_content(pictures.source, index) for index in range(len(pictures.source))]
        height, width = space.size
        facts = EncoderFacts("latents", space.encoder, height * width, 1)
        self._files = EmbeddingFiles(cache / f"{self._settings_digest()}-latents", facts)
        self._complete()

    def check(self, space: Space, source: ImageSource) -> None:
        """Check that a stage can train on these latents.

        Raises:
            DataError: if it makes other latents, or the latents are of other images.
        """
        if space != self.space:
            raise DataError(f"the images were encoded for {self.space}, the stage makes {space}.")
        if len(source) != len(self._keys):
            raise DataError(f"{len(self._keys)} images were encoded, but there are {len(source)}.")

    def latents(self, index: int) -> Tensor:
        """The latents (c, h, w) of an image.

        Raises:
            DataError: naming the image, if it is damaged or too small.
        """
        kept = self._files.get(self._keys[index])
        if kept is None:  # it could not be used, and the reading of it says why
            return self._encode(self._picture(index)[None])[0].cpu()
        return kept.tokens.view(self.space.channels, *self.space.size).clone()

    def _picture(self, index: int) -> Tensor:
        return as_float(self.pictures.sized(index).image)

    def _complete(self) -> None:
        """Encode the images that no file holds; one process does it, and the others wait."""
        if not self._missing():
            return
        with self._files.alone():
            self._files.read()
            missing = self._missing()
            if missing:
                logger.info("encoding %s", counted(len(missing), "image"))
            places = list(missing.values())
            for first in range(0, len(places), IMAGES_IN_A_FILE):
                self._write(places[first : first + IMAGES_IN_A_FILE])
                done = min(first + IMAGES_IN_A_FILE, len(places))
                if done % LOGGED_IMAGES == 0 or done == len(places):
                    logger.info("encoded %s of %s", f"{done:,}", counted(len(places), "image"))

    def _missing(self) -> dict[str, int]:
        """The first index of each content that no file holds."""
        return {key: i for i, key in reversed([*enumerate(self._keys)]) if key not in self._files}

    def _write(self, indices: list[int]) -> None:
        keys, encoded = [], []
        for part, images in self._usable(indices):
            keys += [self._keys[index] for index in part]
            for latents in self._encode(images).cpu():
                encoded.append(EncodedText(latents.flatten(1).contiguous(), torch.zeros(1)))
        if keys:
            self._files.write(keys, encoded)

    def _usable(self, indices: list[int]) -> Iterator[tuple[list[int], Tensor]]:
        """The images that can be used, some at a time; training counts and names the others."""
        part: list[int] = []
        images: list[Tensor] = []
        for index in indices:
            try:
                images.append(self._picture(index))
            except DataError:
                continue
            part.append(index)
            if len(part) == AT_A_TIME:
                yield part, torch.stack(images)
                part, images = [], []
        if part:
            yield part, torch.stack(images)

    def _settings_digest(self) -> str:
        pictures = self.pictures
        decoding = pictures.decoding
        settings = {
            "pictures": pictures.contract.space.to_dict(),
            "latents": self.space.to_dict(),
            "range": decoding.range,
            "truncated": decoding.check_words
            if isinstance(decoding, BandDecoding)
            else decoding.truncated,
            "too_small": pictures.too_small,
        }
        text = json.dumps(settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def _content(source: ImageSource, index: int) -> str:
    """A hash of an image; of its name if it cannot be read."""
    try:
        if isinstance(source, TensorSource):
            data = source.image(index).contiguous().numpy().tobytes()
        else:
            number = source.number_in_file(index)
            data = source.read(index) + (f"#{number}".encode() if number else b"")
    except DataError:
        data = source.name(index).encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()
