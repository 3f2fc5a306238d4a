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


def build(blocks: gr.Blocks, folder: Path) -> None:
    """Add the tab.

    Args:
        blocks: the page.
        folder: folder of the run.
    """
    name = folder.resolve().name
    gr.HTML(
        f"<p>{escape(name)}, as its folder stands. This page follows the run while it trains.</p>",
        elem_classes="lead",
    )
    page = gr.HTML("", elem_id="run-report")
    last_stamp = gr.State(())
    timer = gr.Timer(REFRESH_S)

    def refresh(before: tuple[int, ...]) -> tuple[object, object]:
        now = stamp(folder)
        if now and tuple(before) == now:
            return gr.skip(), gr.skip()
        return run_page(folder), now

    fields = {"inputs": last_stamp, "outputs": [page, last_stamp]}
    for event in (blocks.load, timer.tick):
        event(refresh, **fields, show_progress="hidden", api_visibility="private")
