"""libvips, set up for untrusted files. It reads and writes colour of 16 bits, which Pillow cannot.

pyvips is imported on the first call: loading it takes a tenth of a second.
"""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType

# names that libvips uses
FORM_OF_BITS = {8: "uchar", 16: "ushort"}
GREY_OF_BITS = {8: "b-w", 16: "grey16"}
RGB_OF_BITS = {8: "srgb", 16: "rgb16"}
PROFILE = "icc-profile-data"


@cache
def libvips() -> ModuleType:
    """The module `pyvips`, without the operations that are not hardened against malicious files.

    Its cache is off too, since it would keep pictures in memory after their use. Its warnings are
    not logged: they only repeat the errors that it raises.
    """
    import pyvips

    pyvips.block_untrusted_set(True)
    pyvips.cache_set_max(0)
    logging.getLogger("pyvips").setLevel(logging.ERROR)
    return pyvips


def first_line(error: Exception) -> str:
    """The first line of an error of libvips, which names the cause; the rest is context."""
    lines = str(getattr(error, "detail", "") or error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
