"""`cascade report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")]) -> None:
    """Write a run's report.html anew, also while it is being trained.

    Example: cascade report runs/emoji-64
    """
    from cascade.training.report import write_report

    typer.echo(f"{write_report(run)} written; open it in a browser.")
