"""What of an image file is lost when its picture is saved anew for a data set."""

from __future__ import annotations

from typing import NamedTuple

from cascade.imaging.picture_reading import count_pages, decode_picture


class Original(NamedTuple):
    """An image file before it is saved anew.

    Attributes:
        bits: per channel, 8 or 16.
        pages: number of pages or frames.
        transparent: whether it has transparency.
    """

    bits: int
    pages: int
    transparent: bool

    @classmethod
    def of(cls, data: bytes) -> Original:
        """Look at the content of a file.

        Raises:
            DataError: if it is not a readable image.
        """
        picture = decode_picture(data, "the image")
        return cls(picture.bits, count_pages(data, "the image"), picture.alpha is not None)

    def losses(self, bits: int) -> tuple[str, ...]:
        """Name what an opaque image of one page and so many bits per channel does not hold."""
        losses = {
            "16 bits are reduced to 8": self.bits > bits,
            "only the first page is kept": self.pages > 1,
            "transparency is composited on white": self.transparent,
        }
        return tuple(loss for loss, applies in losses.items() if applies)
