"""Prints rows in columns: aligned for a reader, separated by tabs for a program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import typer


def print_rows(rows: Iterable[Sequence[str]], headings: Sequence[str] = ()) -> None:
    """Print rows of text.

    In a terminal the columns are aligned and long texts wrapped. In a pipe or file each row is one
    line whose cells are separated by tabs, with neither padding nor headings.

    Args:
        rows: the cells of each row.
        headings: one per column, or none.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row).rstrip("\t"))
        return
    table = Table(box=None, pad_edge=False, show_header=bool(headings))
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(Text, row))  # plain text: brackets are no markup
    console.print(table)
