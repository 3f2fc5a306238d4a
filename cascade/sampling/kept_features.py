"""Deep features of a network that several steps of a walk share (`SamplingSettings.reuse`)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import final

import torch
from torch import Tensor

from cascade.errors import ContractError
from cascade.sampling.memory import MOST_OF_MEMORY, free_bytes


@final
class KeptFeatures:
    """The deep features of one batch of tiles during one walk.

    Args:
        calls: number of calls of the network that share features, at least 2.
    """

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._features: Tensor | None = None
        self._group: Hashable = None
        self._age = 0

    def begin_call(self, group: Hashable) -> None:
        """Count a call of the network, and drop features that it must not use.

        Args:
            group: which images go through the network, such as both halves of a guided step;
                features of another group are not used.
        """
        self._age += 1
        if self._group != group or self._age >= self._calls:
            self._features = None
        self._group = group

    @property
    def features(self) -> Tensor | None:
        """The features to use in this call; None if it must compute new ones."""
        return self._features

    def keep(self, features: Tensor) -> None:
        """Keep the features from which this call predicted."""
        if features is not self._features:
            self._features, self._age = features, 0

    def check_memory(self, batches: int, device: torch.device) -> None:
        """Check that there is memory for the features of all batches of tiles.

        Args:
            batches: number of batches of tiles.
            device: device of the features.

        Raises:
            ContractError: if there is not.
        """
        if self._features is None:
            return
        size_bytes = self._features.nbytes * (batches - 1)
        free = MOST_OF_MEMORY * free_bytes(device)
        if size_bytes > free:
            raise ContractError(
                f"reuse {self._calls} keeps {size_bytes / 2**30:.1f} GiB of features for an "
                f"image of this size, but only {free / 2**30:.1f} GiB may be used; set reuse to "
                "1."
            )
