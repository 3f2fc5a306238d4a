"""Which training images could not be used, and when there are too many of them."""

from __future__ import annotations

from collections.abc import Iterable

from cascade.errors import DataError

ALWAYS_ALLOWED_IMAGES = 3


class BrokenImages:
    """Collects the names of broken images, and ends the run when there are too many.

    A share alone would end a run on 50 images at the first broken one, so `ALWAYS_ALLOWED_IMAGES`
    are allowed in any set, unless the share is 0: then none is.

    Args:
        total_images: in the whole set.
        max_share: of them that may be broken, in [0, 1].
    """

    def __init__(self, total_images: int, max_share: float) -> None:
        self.total_images = total_images
        self.max_share = max_share
        self._reasons: dict[str, None] = {}  # a set that keeps the order

    def add(self, reasons: Iterable[str]) -> None:
        """Take in what a batch says is broken, each as `name: reason`; known ones count once.

        Raises:
            DataError: if more are broken than are allowed.
        """
        self._reasons.update(dict.fromkeys(reasons))
        if len(self._reasons) > self.allowed_images:
            raise DataError(
                f"{len(self._reasons)} of {self.total_images} images are broken, and "
                f"data.max_broken_share={self.max_share:g} allows {self.allowed_images}: "
                f"{' '.join(self.names[:3])} cascade data check PATH lists all."
            )

    @property
    def allowed_images(self) -> int:
        """How many may be broken."""
        if self.max_share == 0:
            return 0
        return max(ALWAYS_ALLOWED_IMAGES, int(self.max_share * self.total_images))

    @property
    def names(self) -> list[str]:
        """The broken images as `name: reason`, in the order in which they were met."""
        return list(self._reasons)

    @property
    def share(self) -> float:
        """Of the whole set that is known to be broken, in [0, 1]."""
        return len(self._reasons) / self.total_images
