"""`cascade inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli.documents import AsJson, Document


def inspect(
    pictures: Annotated[list[Path], typer.Argument(help="Pictures that Cascade made.")],
    as_json: AsJson = False,
) -> Document | None:
    """Tell how pictures were made: model, seed, settings, mark, and the command.

    The mark is the IPTC's word for pictures that a trained model made or changed. Of content
    credentials (C2PA), it tells who signed them and whether the file is still as it was signed.

    Examples:

    cascade inspect out/00000.png

    cascade inspect large/*.jpg --json
    """
    from dataclasses import asdict

    from cascade.inspection import inspect_picture

    documents = []
    for path in pictures:
        inspection = inspect_picture(path)
        if as_json:
            values = {
                "file": str(path),
                "mark": inspection.source_type,
                "command": inspection.command,
                "record": inspection.record,
            }
            if inspection.manifest is not None:
                values["manifest"] = asdict(inspection.manifest)
            documents.append(values)
            continue
        typer.echo(str(path))
        for name, value in inspection.lines():
            typer.echo(f"  {name:8} {value}")
    return {"pictures": documents} if as_json else None
