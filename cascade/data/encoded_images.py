"""Latents and embeddings of training images, which a frozen encoder makes once, before training.

A cache keeps them by content: those of an image are found by a hash of its file, so that a renamed
or moved image is not encoded again, and a changed one is. Encoder, size and reading of the images
decide the folder.

Shapes: B images, C channels, H and W pixels; c channels of what an encoder makes, h and w its size.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from cascade.contract import Contract
from cascade.data.band_decoding import BandDecoding
from cascade.data.fitting import as_float
from cascade.data.masking import check_masks
from cascade.data.source import ImageSource
from cascade.data.tensors import TensorSource
from cascade.data.training_images import TrainingImages
from cascade.errors import DataError
from cascade.kept_files import KeptFiles
from cascade.reporting.words import counted
from cascade.space import Space

Coder = Callable[[Tensor], Tensor]
AT_A_TIME = 8
IMAGES_IN_A_FILE = 512  # an interrupted run repeats fewer than these
LOGGED_IMAGES = 2048  # between two lines about progress
logger = logging.getLogger(__name__)


@final
class EncodedImages:
    """What a frozen encoder makes of training images.

    Args:
        pictures: the images at the size that the encoder takes, neither cropped nor mirrored.
        space: space of the latents or embeddings, which names the encoder.
        encode: encodes images (B, C, H, W) in [-1, 1]: (B, c, h, w).
        cache: folder of the caches of all encoders.
        decode: makes images (B, C, H, W) of latents (B, c, h, w); None for embeddings, of which
            there are none.

    Raises:
        OutputError: if the cache cannot be written.
    """

    def __init__(
        self,
        pictures: TrainingImages,
        space: Space,
        encode: Coder,
        cache: Path,
        *,
        decode: Coder | None = None,
    ) -> None:
        if pictures.masks_missing:
            check_masks(Contract(space))
        self.pictures = pictures
        self.space = space
        self._encode = encode
        self._decode = decode
        self._keys = [_content(pictures.source, index) for index in range(len(pictures.source))]
        folder = cache / f"{self._settings_digest()}-{space.kind}"
        open_file = partial(_EncodedFile, shape=[space.channels, *space.size])
        self._files = KeptFiles(folder, open_file, f"{space.kind} of images")
        self._complete()

    def check(self, space: Space, source: ImageSource) -> None:
        """Check that they are those of images, in a space that a stage makes or takes.

        Raises:
            DataError: if they are others.
        """
        if space != self.space:
            raise DataError(f"the images were encoded for {self.space}, the stage needs {space}.")
        if len(source) != len(self._keys):
            raise DataError(f"{len(self._keys)} images were encoded, but there are {len(source)}.")

    def values(self, index: int) -> Tensor:
        """The latents or the embedding (c, h, w) of an image.

        Raises:
            DataError: naming the image, if it is damaged or too small.
        """
        entry = self._files.get(self._keys[index])
        if entry is None:  # it could not be used, and the reading of it says why
            return self._encode(self._picture(index)[None])[0].cpu()
        return entry

    def decode(self, values: Tensor) -> Tensor:
        """Make images (B, C, H, W) of latents (B, c, h, w); embeddings stay as they are."""
        return values if self._decode is None else self._decode(values)

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
            encoded.append(self._encode(images).float().cpu())
        if keys:
            self._files.write(keys, {"values": torch.cat(encoded)})

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
            "encoded": self.space.to_dict(),
            "range": decoding.range,
            "truncated": decoding.check_words
            if isinstance(decoding, BandDecoding)
            else decoding.truncated,
            "too_small": pictures.too_small,
        }
        limits = decoding.space if isinstance(decoding, BandDecoding) else decoding.range
        if limits is not None:  # without limits no number lies outside
            settings["outside"] = decoding.outside
        text = json.dumps(settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@final
class _EncodedFile:
    """One file of the cache; only its keys are in memory.

    Raises:
        ValueError: if its tensors do not fit together.
    """

    def __init__(self, path: Path, shape: list[int]) -> None:
        file: Any = safe_open(path, framework="pt")
        self.keys: np.ndarray = file.get_tensor("keys").numpy()
        self._values = file.get_slice("values")
        if self._values.get_shape() != [len(self.keys), *shape]:
            raise ValueError("its tensors do not fit together")

    def entry(self, row: int) -> Tensor:
        """The latents or the embedding (c, h, w) of one image."""
        return self._values[row : row + 1][0].clone()


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
