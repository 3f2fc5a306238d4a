"""Counts unusable training images and stops the run when there are too many."""

from __future__ import annotations

from collections.abc import Iterable

from cascade.errors import DataError

ALWAYS_ALLOWED_IMAGES = 3


def allowed_images(total_images: int, max_share: float) -> int:
    """How many images of a data set may be broken: at least a few, but none if the share is 0.

    Args:
        total_images: number of images in the whole data set.
        max_share: largest share of broken images, in [0, 1].
    """
    if max_share == 0:
        return 0
    return max(ALWAYS_ALLOWED_IMAGES, int(max_share * total_images))


def listed_by(command: str, what: str = "them") -> str:
    """A sentence that names the command which lists images; empty if there is no such command."""
    return f" {command} lists {what}." if command else ""


class BrokenImages:
    """Collects the names of broken images and raises when there are too many.

    A share alone would stop a run on 50 images at the first broken one. So
    `ALWAYS_ALLOWED_IMAGES` broken images are allowed in any data set, unless the share is 0, which
    allows none.

    Args:
        total_images: number of images in the whole data set.
        max_share: largest share of broken images, in [0, 1].
        command: the command that lists all of them; empty for none.
    """

    def __init__(
        self, total_images: int, max_share: float, *, command: str = "cascade data check PATH"
    ) -> None:
        self.total_images = total_images
        self.max_share = max_share
        self.command = command
        self._reasons: dict[str, None] = {}  # a set that keeps the order

    def add(self, reasons: Iterable[str]) -> None:
        """Record broken images; the same image counts once.

        Args:
            reasons: one `name: reason` per broken image.

        Raises:
            DataError: if more images are broken than are allowed.
        """
        self._reasons.update(dict.fromkeys(reasons))
        if len(self._reasons) > self.allowed_images:
            raise DataError(
                f"{len(self._reasons)} of {self.total_images} images are broken, but "
                f"max_broken_share={self.max_share:g} allows {self.allowed_images}: "
                f"{' '.join(self.names[:3])}{listed_by(self.command, 'them all')}"
            )

    @property
    def allowed_images(self) -> int:
        """How many images may be broken."""
        return allowed_images(self.total_images, self.max_share)

    @property
    def names(self) -> list[str]:
        """The broken images as `name: reason`, in the order in which they were recorded."""
        return list(self._reasons)
