"""Somebody's own picture: its pixels, and all that its file says about them.

Training images become 8-bit sRGB without transparency (`cascade/imaging/reading.py`); a picture
that a person hands in stays what it is:

- Grey stays grey, of one channel; one-bit pictures become grey of 8 bits. Palette pictures become
  grey where every entry of the palette is grey, else RGB. WebP has no grey, so one whose channels
  differ by no more than its rounding, 1, is grey.
- 8 bits per channel stay 8, 16 stay 16; PIL images of 16-bit colour cannot be, so `to_pil` rounds
  those to 8.
- Transparency is kept apart from the colours, also where a palette entry or one colour has it.
- An ICC profile of RGB or grey pictures is kept, and the pixels are left in its space. CMYK (by its
  profile, else by the plain formula), YCbCr and Lab become RGB; of these, CMYK and Lab become sRGB
  without a profile. A profile that is damaged or for another kind of picture is dropped.
- The orientation of EXIF is applied. What is kept of EXIF: see `cascade/imaging/exif.py`.
- The resolution (DPI) is kept. XMP, IPTC and gamma chunks are not.

Shapes: C channels (1 or 3), H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cascade.errors import DataError
from cascade.imaging import exif
from cascade.imaging.colour_profiles import (
    grey_curve,
    lab_to_srgb,
    profile_space,
    srgb_colours,
    to_srgb,
)
from cascade.imaging.reading import check_range, orientation_of
from cascade.imaging.transparency import fill_hidden

FORMATS = ("png", "jpeg", "webp", "tiff")  # that pictures are written in
DTYPE_OF_BITS = {8: torch.uint8, 16: torch.uint16}
SPACE_OF_CHANNELS = {1: "GRAY", 3: "RGB"}
# orientation of EXIF: (swap rows and columns, then mirror down, mirror across)
TURNS = {1: (0, 0, 0), 2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0)}
TURNS |= {5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with what belongs to it.

    Attributes:
        colour: (1, H, W) grey or (3, H, W), uint8 or uint16.
        alpha: (1, H, W) of the same type, 0 transparent; None if the picture is opaque.
        bits: per channel.
        profile: ICC profile of the colours' space; None is sRGB, or grey of the same curve.
        exif: block without the header `Exif`, the orientation 1; None if there is none.
        dpi: pixels per inch across and down.
        format: of FORMATS, to write it in where nothing else is asked for.
    """

    colour: Tensor
    alpha: Tensor | None = None
    bits: Literal[8, 16] = 8
    profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    format: str = "png"

    def __post_init__(self) -> None:
        shape = tuple(self.colour.shape)
        fits = len(shape) == 3 and shape[0] in (1, 3) and min(shape) > 0
        fits = fits and self.colour.dtype == DTYPE_OF_BITS.get(self.bits)
        if self.alpha is not None:
            fits = fits and self.alpha.shape == (1, *shape[1:])
            fits = fits and self.alpha.dtype == self.colour.dtype
        if not fits:
            raise DataError(
                "a picture has colours (1 or 3, H, W) and perhaps an alpha (1, H, W), of uint8 or "
                f"uint16 as its bits say; got {shape} of {self.colour.dtype} with {self.bits} bits"
                f"{'' if self.alpha is None else f' and alpha {tuple(self.alpha.shape)}'}."
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

    def with_pixels(self, colour: Tensor, alpha: Tensor | None) -> Picture:
        """New pixels, of any size, with everything else that belongs to this picture.

        The number of bits is that of the pixels. A profile stays only where grey stays grey and
        colour stays colour. EXIF gets the new size.

        Args:
            colour: (1 or 3, H, W), uint8 or uint16.
            alpha: (1, H, W) of the same type, or None.
        """
        height, width = colour.shape[-2:]
        return replace(
            self,
            colour=colour,
            alpha=alpha,
            bits=8 if colour.dtype == torch.uint8 else 16,
            profile=self.profile if len(colour) == len(self.colour) else None,
            exif=self.exif and exif.sized_exif(self.exif, (height, width)),
        )

    def in_srgb(self) -> Picture:
        """The picture without its profile, of the values that its colours have in sRGB.

        One that is in sRGB already, or whose profile is damaged, keeps its values.
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
        return replace(self, colour=colour, profile=None)

    @classmethod
    def from_pil(cls, image: Image.Image, name: str = "the image") -> Picture:
        """Take over a PIL image by the rules above.

        Raises:
            DataError: if its numbers have no range of their own.
        """
        image.load()
        return picture_of_pil(image, exif_block(image), name)

    def to_pil(self) -> Image.Image:
        """A PIL image of mode L, LA, RGB or RGBA, or I;16 for opaque grey of 16 bits.

        Colour and transparency of 16 bits are rounded to 8, since PIL has no more.
        """
        parts = [self.colour] if self.alpha is None else [self.colour, self.alpha]
        pixels = torch.cat(parts)
        if self.bits == 16 and len(pixels) > 1:
            pixels = (pixels.float() / 257).round().to(torch.uint8)
        image = Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).contiguous().numpy())
        known = {"icc_profile": self.profile, "exif": self.exif, "dpi": self.dpi}
        image.info |= {key: value for key, value in known.items() if value is not None}
        return image


def picture_of_pil(
    image: Image.Image,
    block: bytes,
    name: str,
    *,
    deep: tuple[Tensor, Tensor | None] | None = None,
) -> Picture:
    """Take over a PIL image.

    Args:
        image: loaded.
        block: its EXIF, or the whole file if it is a TIFF.
        name: for error messages.
        deep: colour and alpha of 16 bits, instead of the 8 that PIL has of them.

    Raises:
        DataError: if its numbers have no range of their own.
    """
    check_range(image, name)
    colour, alpha = deep or _channels_of_pil(image)
    return assembled(
        colour,
        alpha,
        orientation=orientation_of(image),
        profile=image.info.get("icc_profile") if image.mode not in ("CMYK", "LAB") else None,
        block=block,
        dpi=_resolution(image) or exif.resolution_in_block(block),
        file_format=image.format,
    )


def exif_block(image: Image.Image) -> bytes:
    """EXIF of a loaded PIL image, wherever its file had it; empty where that is damaged."""
    try:
        return image.info.get("exif") or image.getexif().tobytes()
    except Exception:  # Pillow raises many kinds on damaged blocks
        return b""


def assembled(
    colour: Tensor,
    alpha: Tensor | None,
    *,
    orientation: int,
    profile: bytes | None,
    block: bytes,
    dpi: tuple[float, float] | None,
    file_format: str | None,
) -> Picture:
    """Put a picture together from what a file holds.

    Args:
        colour: (1 or 3, H, W) as stored.
        alpha: (1, H, W) as stored, or None.
        orientation: of EXIF; the pixels are turned by it.
        profile: dropped if it is not for such colours.
        block: EXIF, of which the descriptive part is kept.
        dpi: along the stored rows and columns.
        file_format: as Pillow names it.
    """
    colour = upright(colour, orientation)
    height, width = colour.shape[-2:]
    return Picture(
        colour=colour,
        alpha=None if alpha is None else upright(alpha, orientation),
        bits=8 if colour.dtype == torch.uint8 else 16,
        profile=profile if profile_space(profile) == SPACE_OF_CHANNELS[len(colour)] else None,
        exif=exif.kept_exif(block, (height, width)),
        dpi=turned_dpi(dpi, orientation),
        format=format_of(file_format),
    )


def quantised(image: Tensor, bits: Literal[8, 16]) -> Tensor:
    """Round values in [-1, 1] to whole numbers: uint8 or uint16, of the same shape."""
    half = (2**bits - 1) / 2
    return ((image.float().clamp(-1, 1) + 1) * half).round().to(DTYPE_OF_BITS[bits])


def upright(pixels: Tensor, orientation: int) -> Tensor:
    """Turn and mirror (C, H, W) as its EXIF orientation says; others than 1 to 8 count as 1."""
    swap, down, across = TURNS.get(orientation, TURNS[1])
    if swap:
        pixels = pixels.transpose(1, 2)
    mirrored = [axis for axis, wanted in ((1, down), (2, across)) if wanted]
    return pixels.flip(mirrored) if mirrored else pixels.contiguous()


def turned_dpi(dpi: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    """Pixels per inch across and down after turning by an EXIF orientation."""
    swap, _, _ = TURNS.get(orientation, TURNS[1])
    return (dpi[1], dpi[0]) if swap and dpi is not None else dpi


def format_of(name: str | None) -> str:
    """The format to write a file of this format in: itself, or PNG."""
    if name == "MPO":  # several JPEGs in one file, as many phones make
        return "jpeg"
    return name.lower() if name is not None and name.lower() in FORMATS else "png"


def _channels_of_pil(image: Image.Image) -> tuple[Tensor, Tensor | None]:
    """Colour and alpha, (C, H, W) each."""
    if image.mode.startswith("I"):  # 16-bit grey
        return _channels(np.asarray(image).clip(0, 65535).astype(np.uint16)), None
    if image.mode in ("CMYK", "LAB"):
        srgb = lab_to_srgb(image) if image.mode == "LAB" else to_srgb(image).convert("RGB")
        return _channels(np.asarray(srgb)), None
    has_alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    mode = ("LA" if has_alpha else "L") if _is_grey(image) else ("RGBA" if has_alpha else "RGB")
    pixels = _channels(np.asarray(image if image.mode == mode else image.convert(mode)))
    return (pixels[:-1], pixels[-1:]) if has_alpha else (pixels, None)


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    if image.format == "TIFF":  # Pillow says 1 where the file says nothing; its fields tell
        return None
    return exif.plausible_dpi(image.info.get("dpi"))


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        entries = np.reshape(image.getpalette("RGB") or [], (-1, 3))
        return bool((entries == entries[:, :1]).all())
    if image.format == "WEBP":
        return int(np.ptp(np.asarray(image)[..., :3], axis=-1).max()) <= 1
    return image.mode in ("1", "L", "LA", "La")


def _channels(pixels: np.ndarray) -> Tensor:
    """(H, W) or (H, W, C) to (C, H, W)."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
