"""The tab about a training run: its samples and curves, refreshed while it trains."""

from __future__ import annotations

from html import escape
from pathlib import Path

import gradio as gr

from cascade.errors import CascadeError
from cascade.training.report import progress_sections
from cascade.training.run_record import read_run
from cascade.ui import showing

REFRESH_S = 5.0


def run_page(folder: Path) -> str:
    """Samples and curves of a run as HTML; one line if it cannot be read."""
    try:
        run = read_run(folder)
        parts = [
            f"<section><h2>{escape(head)}</h2>{part}</section>"
            for head, part in progress_sections(run)
            if part
        ]
    except CascadeError as error:
        return showing.lines([str(error).replace(f"{folder}", folder.name)], "fault")
    return f'<div class="report">{"".join(parts)}</div>'


def stamp(folder: Path) -> tuple[int, ...]:
    """What changes when a run has written something."""
    files = [folder / "log.jsonl", *sorted((folder / "samples").glob("*.png"))]
    return tuple(file.stat().st_mtime_ns for file in files if file.is_file())


def build(folder: Path) -> None:
    """Add the tab."""
    name = folder.resolve().name
    gr.HTML(
        f"<p>{escape(name)}, as its folder stands. This page follows the run while it trains.</p>",
        elem_classes="lead",
    )
    page = gr.HTML(lambda: run_page(folder), elem_id="run-report")
    last_stamp = gr.State(lambda: stamp(folder))
    timer = gr.Timer(REFRESH_S)

    def refresh(before: tuple[int, ...]) -> tuple[object, object]:
        now = stamp(folder)
        if tuple(before) == now:
            return gr.skip(), gr.skip()
        return run_page(folder), now

    timer.tick(
        refresh, last_stamp, [page, last_stamp], show_progress="hidden", api_visibility="private"
    )
