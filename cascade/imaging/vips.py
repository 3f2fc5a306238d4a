"""libvips, set up for files that nobody vouches for; it reads and writes 16-bit colour.

Imported where it is used: loading it costs a tenth of a second.
"""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType


@cache
def libvips() -> ModuleType:
    """The module `pyvips`, with operations that are not hardened against bad files switched off.

    Its cache is off too, since it would keep pictures in memory that are no longer needed; its
    warnings, which go beside the errors that it raises, are not shown.
    """
    import pyvips

    pyvips.block_untrusted_set(True)
    pyvips.cache_set_max(0)
    logging.getLogger("pyvips").setLevel(logging.ERROR)
    return pyvips


def first_line(error: Exception) -> str:
    """What went wrong, of the many lines in which libvips says it."""
    lines = str(getattr(error, "detail", "") or error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
