"""Names that Windows does not take, such as `CON.png` or `a:b.png`, and names in their place.

Members of shards may have such names. A colon would hide the result in a stream of another file,
and a backslash would put it into another folder.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath, PureWindowsPath

FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')
DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)


def windows_place(place: PurePosixPath) -> PurePosixPath:
    """The place itself, or one like it whose every part is a name that Windows takes."""
    return PurePosixPath(*map(_windows_name, place.parts))


def _windows_name(name: str) -> str:
    """A hash of the name keeps it apart from others that become alike."""
    plain = FORBIDDEN.sub("_", name).rstrip(". ")
    if plain == name and not DEVICES.match(name):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    path = PureWindowsPath(plain)
    stem, _, rest = path.stem.partition(".")  # Windows looks at what stands before the first dot
    return f"{stem.rstrip()}~{digest}{rest and f'.{rest}'}{path.suffix}"
