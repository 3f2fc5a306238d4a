"""A picture that somebody hands in: its pixels, and what belongs to them.

Training makes all pictures alike (`cascade/imaging/reading.py`). A picture to restore keeps what it
is:

- Grey stays grey, of one channel; one-bit pictures become grey of 8 bits. Palette pictures become
  grey if every entry of the palette is grey, else RGB. WebP has no grey, so a WebP whose channels
  differ by no more than its rounding, 1 of 255, is grey.
- Up to 8 bits per channel become 8, and 9 to 16 become 16. PIL has no colour of 16 bits, so
  `to_pil` rounds it to 8.
- Transparency is kept apart from the colours, also if a palette entry or a single colour has it.
- An ICC profile of an RGB or grey picture is kept, and the pixels stay in its colour space. CMYK
  (by its profile, else by the plain formula) and Lab become sRGB of the same depth without a
  profile; YCbCr becomes RGB. A profile that is damaged or for another kind of picture is dropped.
- Which other metadata is kept: see `cascade/imaging/kept_metadata.py`.

Shapes: C channels (1 or 3), H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from cascade.conditioning.defects import Defects
from cascade.conditioning.jpeg_quality import quality_of_table
from cascade.conditioning.noise_level import noise_level
from cascade.errors import DataError
from cascade.imaging.colour_profiles import (
    checked_profile,
    grey_curve,
    srgb_colours,
    with_loss_of_inks,
)
from cascade.imaging.exif_blocks import MAIN, read_directories
from cascade.imaging.kept_metadata import kept, renewed
from cascade.imaging.metadata import Metadata
from cascade.imaging.metadata_reading import metadata_of_pil
from cascade.imaging.opening import check_range
from cascade.imaging.orientation import orientation_of, upright, upright_dpi
from cascade.imaging.pil_channels import channels_of_pil
from cascade.imaging.resolution import plausible_dpi, resolution_of
from cascade.imaging.transparency import fill_hidden

FORMATS = ("png", "jpeg", "webp", "tiff")  # in which pictures are written
DTYPE_OF_BITS = {8: torch.uint8, 16: torch.uint16}
SPACE_OF_CHANNELS = {1: "GRAY", 3: "RGB"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with what belongs to it.

    Attributes:
        colour: (1, H, W) grey or (3, H, W), uint8 or uint16.
        alpha: (1, H, W) of the same type, 0 transparent; None if the picture is opaque.
        bits: per channel.
        profile: ICC profile of the colours; None for sRGB, or grey of the same curve.
        metadata: EXIF, XMP, IPTC and texts.
        dpi: pixels per inch, across and down; None if the file states none.
        format: one of FORMATS, in which the picture is written unless another one is asked for.
        jpeg_quality: quality from 1 to 100 by the tables of its JPEG file; None if it is no JPEG.
        is_truncated: whether the end of its file is missing, so that a part of it is grey.

    Raises:
        DataError: if colours and alpha have another shape, or a type that does not go with `bits`.
    """

    colour: Tensor
    alpha: Tensor | None = None
    bits: Literal[8, 16] = 8
    profile: bytes | None = None
    metadata: Metadata = field(default_factory=Metadata)
    dpi: tuple[float, float] | None = None
    format: str = "png"
    jpeg_quality: float | None = None
    is_truncated: bool = False

    def __post_init__(self) -> None:
        shape = tuple(self.colour.shape)
        fits = len(shape) == 3 and shape[0] in (1, 3) and min(shape) > 0
        fits = fits and self.colour.dtype == DTYPE_OF_BITS.get(self.bits)
        if self.alpha is not None:
            fits = fits and self.alpha.shape == (1, *shape[1:])
            fits = fits and self.alpha.dtype == self.colour.dtype
        if not fits:
            raise DataError(
                "a Picture has colours (1 or 3, H, W) and perhaps an alpha (1, H, W), of uint8 "
                f"or uint16 as its bits say; got {shape} of {self.colour.dtype} with {self.bits} "
                f"bits{'' if self.alpha is None else f' and alpha {tuple(self.alpha.shape)}'}."
            )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.colour.shape[-2:]
        return height, width

    def image(self) -> Tensor:
        """The colours for a network: (C, H, W) float32 in [-1, 1].

        Colours under fully transparent pixels come from their visible neighbours.
        """
        colour = self.colour.float()
        if self.alpha is not None:
            colour = fill_hidden(colour, self.alpha)
        return colour / ((2**self.bits - 1) / 2) - 1

    @cached_property
    def defects(self) -> Defects:
        """How noisy and how compressed the picture is; the tables of a JPEG state its quality."""
        image = self.image()
        if self.jpeg_quality is None:
            return Defects.of(image)
        return Defects.believed(noise_level(image), self.jpeg_quality, image)

    def with_pixels(self, colour: Tensor, alpha: Tensor | None) -> Picture:
        """Replace the pixels by others of any size and bit depth, and keep the rest.

        The profile is kept only if grey stays grey or colour stays colour; else the pixels are
        sRGB. Size and colour space in the metadata are brought up to date.

        Args:
            colour: (1 or 3, H, W), uint8 or uint16.
            alpha: (1, H, W) of the same type, or None.
        """
        height, width = colour.shape[-2:]
        is_srgb_now = len(colour) != len(self.colour)
        return replace(
            self,
            colour=colour,
            alpha=alpha,
            bits=8 if colour.dtype == torch.uint8 else 16,
            profile=None if is_srgb_now else self.profile,
            jpeg_quality=None,
            metadata=renewed(self.metadata, (height, width), is_srgb_now=is_srgb_now),
        )

    def in_srgb(self) -> Picture:
        """Convert the colours to sRGB and drop the profile.

        The values do not change if they are in sRGB already or if the profile is damaged.
        """
        if self.profile is None:
            return self
        values = self.colour.numpy()
        if len(values) == 3:
            converted = srgb_colours(values, self.profile)
        else:
            curve = grey_curve(self.profile, self.bits)
            converted = None if curve is None else curve[values]
        colour = self.colour if converted is None else torch.from_numpy(converted)
        metadata = renewed(self.metadata, self.size, is_srgb_now=True)
        return replace(self, colour=colour, profile=None, metadata=metadata)

    @classmethod
    def from_pil(cls, image: Image.Image, name: str = "the image") -> Picture:
        """Convert a PIL image by the rules at the head of this file.

        Args:
            image: a PIL image of any mode whose range is known.
            name: for error messages.

        Raises:
            DataError: if the image has 32 bits per pixel.
        """
        image.load()
        return picture_of_pil(image, metadata_of_pil(image), name)

    def to_pil(self) -> Image.Image:
        """Convert to a PIL image of mode L, LA, RGB or RGBA, or I;16 for opaque grey of 16 bits.

        Colour of 16 bits and grey of 16 bits with transparency are rounded to 8 bits, since PIL
        has no such modes.
        """
        pixels = self.colour if self.alpha is None else torch.cat([self.colour, self.alpha])
        if self.bits == 16 and len(pixels) > 1:
            pixels = (pixels.float() / 257).round().to(torch.uint8)
        image = Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).contiguous().numpy())
        metadata = {"exif": self.metadata.exif, "xmp": self.metadata.xmp, "dpi": self.dpi}
        extras = {"icc_profile": self.profile, **metadata}
        image.info |= {key: value for key, value in extras.items() if value is not None}
        return image


def picture_of_pil(
    image: Image.Image,
    metadata: Metadata,
    name: str,
    *,
    deep_channels: tuple[Tensor, Tensor | None] | None = None,
) -> Picture:
    """Convert a PIL image.

    Args:
        image: loaded.
        metadata: all metadata of its file.
        name: for error messages.
        deep_channels: colour and alpha of 16 bits, to use in place of PIL's 8.

    Raises:
        DataError: if the image has 32 bits per pixel.
    """
    check_range(image, name)
    colour, alpha = deep_channels or channels_of_pil(image)
    is_converted = image.mode in ("CMYK", "LAB")
    if image.mode == "CMYK":
        metadata = with_loss_of_inks(metadata, image.info.get("icc_profile"))
    picture = assembled(
        colour,
        alpha,
        orientation=orientation_of(image, metadata.exif),
        profile=None if is_converted else image.info.get("icc_profile"),
        is_converted=is_converted,
        metadata=metadata,
        dpi=_resolution(image) or resolution_of(read_directories(metadata.exif or b"")[MAIN]),
        file_format=image.format,
    )
    return replace(picture, jpeg_quality=_jpeg_quality(image))


def _jpeg_quality(image: Image.Image) -> float | None:
    """The quality by the table of the first channel, if the image is a JPEG file."""
    tables = getattr(image, "quantization", None)
    return quality_of_table(tables[min(tables)]) if tables else None


def assembled(
    colour: Tensor,
    alpha: Tensor | None,
    *,
    orientation: int,
    profile: bytes | None,
    is_converted: bool = False,
    metadata: Metadata,
    dpi: tuple[float, float] | None,
    file_format: str | None,
) -> Picture:
    """Assemble a picture from what a file holds.

    Args:
        colour: (1 or 3, H, W) as stored.
        alpha: (1, H, W) as stored, or None.
        orientation: from 1 to 8, as EXIF states it; it is applied to the pixels and the resolution.
        profile: ICC; dropped if it is damaged or for another number of channels.
        is_converted: whether the colours were converted to sRGB from what the file holds.
        metadata: all metadata of the file; only what `kept_metadata.py` lists is kept.
        dpi: pixels per inch along the stored rows and columns, or None.
        file_format: Pillow's name for it, or None.
    """
    colour = upright(colour, orientation)
    height, width = colour.shape[-2:]
    profile, losses = checked_profile(profile, SPACE_OF_CHANNELS[len(colour)])
    metadata = replace(metadata, losses=metadata.losses + losses)
    return Picture(
        colour=colour,
        alpha=None if alpha is None else upright(alpha, orientation),
        bits=8 if colour.dtype == torch.uint8 else 16,
        profile=profile,
        metadata=kept(metadata, (height, width), is_srgb_now=is_converted),
        dpi=upright_dpi(dpi, orientation),
        format=_written_format(file_format),
    )


def quantised(image: Tensor, bits: Literal[8, 16]) -> Tensor:
    """Round values in [-1, 1] to whole numbers: uint8 or uint16, of the same shape."""
    half = (2**bits - 1) / 2
    return ((image.float().clamp(-1, 1) + 1) * half).round().to(DTYPE_OF_BITS[bits])


def _written_format(file_format: str | None) -> str:
    """The format in which a picture of this format is written: the same, or PNG."""
    if file_format == "MPO":  # several JPEGs in one file, as many phones make
        return "jpeg"
    name = (file_format or "").lower()
    return name if name in FORMATS else "png"


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    """Pixels per inch that a PIL image states outside EXIF."""
    if image.format == "TIFF":  # Pillow says 1 if the file states none, so its fields are asked
        return None
    if image.format in ("JPEG", "MPO") and not image.info.get("jfif_unit"):
        return None  # Pillow takes that of EXIF without its unit
    return plausible_dpi(image.info.get("dpi"))
