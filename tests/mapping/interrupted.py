"""Starts workers whose process dies once, in the middle of the work."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any


class DiesOnce:
    """Calls an object, and kills its own process after the first batch that it is told to.

    Args:
        call: the object.
        marker: a file whose existence says that a process has died.
        name: name of the picture whose batch is finished before the process dies.
    """

    def __init__(self, call: Any, marker: Path, name: str) -> None:
        self.call = call
        self.marker = str(marker)
        self.name = name

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        result = self.call(batch)
        is_there = any(str(path).endswith(self.name) for path in batch["path"])
        if is_there and not os.path.exists(self.marker):
            Path(self.marker).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return result
