"""What belongs to a picture besides its pixels, profile and resolution, and what was lost of it."""

from __future__ import annotations

from dataclasses import dataclass

COMMENT = "Comment"  # the keyword of PNG texts for what JPEG and GIF call a comment


@dataclass(frozen=True)
class Loss:
    """Something that belonged to a picture and is not kept.

    Attributes:
        what: words that continue "not kept:", such as "IPTC".
        why: the reason, such as "WebP cannot hold it".
        is_colour: whether it concerns the colours, so that it counts without metadata too.
    """

    what: str
    why: str
    is_colour: bool = False


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text with a keyword, as PNG holds them, or a comment of JPEG or GIF.

    Attributes:
        keyword: such as "Title"; `COMMENT` for a comment.
        text: the text.
        language: language tag such as "de"; empty if the file states none.
        translated: the keyword in that language; empty if the file states none.
    """

    keyword: str
    text: str
    language: str = ""
    translated: str = ""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The metadata of a picture.

    Attributes:
        exif: EXIF block without the header `Exif`, its orientation 1; None if there is none.
        xmp: XMP packet in UTF-8, in one piece; None if there is none.
        iptc: IPTC records (IIM); None if there are none.
        photoshop: other Photoshop resources, each a number and its data.
        texts: texts of PNG, comments of JPEG and GIF.
        colour_chunks: chunks of PNG that describe the colours, each a name such as b"gAMA" and its
            data.
        losses: what the file held and is kept in no format.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    photoshop: tuple[tuple[int, bytes], ...] = ()
    texts: tuple[Text, ...] = ()
    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()
    losses: tuple[Loss, ...] = ()
