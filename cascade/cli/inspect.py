"""`cascade inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascade.cli.documents import AsJson, Document

if TYPE_CHECKING:
    from cascade.cli.remaking import Remaking
    from cascade.inspection import Inspection


def inspect(
    context: typer.Context,
    pictures: Annotated[list[Path], typer.Argument(help="Pictures that Cascade made.")],
    as_json: AsJson = False,
) -> Document | None:
    """Tell how pictures were made: model, seed, settings, mark, and the command.

    The mark is the IPTC's word for pictures that a trained model made or changed. Of content
    credentials (C2PA), it tells who signed them and whether the file is still as it was signed.

    In the command, capitals stand for files that the picture does not hold: INPUT is the picture
    that was upscaled, coloured, restored or edited.

    Examples:

    cascade inspect out/00000.png

    cascade inspect large/*.jpg --json
    """
    from cascade.cli.progress import printable
    from cascade.cli.remaking import Remaking, remaking_of
    from cascade.inspection import inspect_picture

    assert context.parent is not None
    commands: Any = getattr(context.parent.command, "commands", {})
    documents = []
    for path in pictures:
        inspection = inspect_picture(path)
        record = inspection.record
        remaking = remaking_of(record, commands, path.suffix) if record else Remaking()
        if as_json:
            documents.append(_document(path, inspection, remaking))
            continue
        typer.echo(printable(str(path)))
        lines = [("command", remaking.command), *(("note", note) for note in remaking.notes)]
        for name, text in [*inspection.lines(), *lines]:
            if text:
                typer.echo(f"  {name:8} {printable(text)}")
    return {"pictures": documents} if as_json else None


def _document(path: Path, inspection: Inspection, remaking: Remaking) -> Document:
    from dataclasses import asdict

    faults = [f"the record cannot be read ({inspection.fault})"] if inspection.fault else []
    values = {
        "file": str(path),
        "mark": inspection.source_type,
        "command": remaking.command,
        "notes": [*faults, *remaking.notes],
        "record": inspection.raw_record,
    }
    if inspection.manifest is not None:
        values["manifest"] = asdict(inspection.manifest)
    return values
