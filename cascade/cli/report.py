"""`cascade report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli.verbosity import note


def report(run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")]) -> None:
    """Write report.html for a run; this also works during training.

    Example: cascade report runs/emoji-64
    """
    from cascade.training.report import write_report

    note(f"wrote {write_report(run)}; open it in a browser.")
