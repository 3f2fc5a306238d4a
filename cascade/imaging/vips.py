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

SYSTEM, NO_CAUSE = "system error:", "Unknown error"  # in its messages
CONTEXT = ("write error", "write failed", "unable to write", "unable to call", "load error")


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


def cause_of(error: Exception) -> str:
    """The line of an error of libvips that names its cause, without a full stop at its end.

    libvips collects lines from the cause outwards, in the form `place: message`. An error of the
    operating system is the cause if there is one; lines such as "unable to write" are context.
    """
    lines = str(getattr(error, "detail", "") or "").strip().splitlines()
    messages = [line.strip().rstrip(".") for line in lines if line.strip()]
    for message in messages:
        if message.startswith(SYSTEM) and NO_CAUSE not in message:
            return message.removeprefix(SYSTEM).strip()
    causes = [each for each in messages if not each.startswith(SYSTEM) and not _is_context(each)]
    if causes:
        return causes[0]
    return "libvips names no cause" + (f"; it reports {messages[0]!r}" if messages else "")


def _is_context(message: str) -> bool:
    return any(words in message.lower() for words in CONTEXT)
