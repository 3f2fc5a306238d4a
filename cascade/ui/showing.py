"""What a page shows of a job, as HTML: progress with a preview, faults, and finished pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from cascade.bulk.slider_page import sliders
from cascade.ui.jobs import Result, View

MOST_LINES = 20  # of notes, and of faults
OVER = {  # by whether there are results
    "done": ("Nothing was made.", "Done."),
    "cancelled": ("Cancelled.", "Cancelled. Finished results are below."),
    "failed": ("Nothing was made.", "Stopped. Finished results are below."),
}
HOW_TO_SLIDE = " Drag across an image: left is before, right is after."


def address(file: Path) -> str:
    """The address of a file on the page, relative to it, so that it holds behind a proxy."""
    return f"gradio_api/file={quote(str(file))}"


def lines(texts: Sequence[str], kind: str) -> str:
    """Lines of text; of very many, the first."""
    shown = [*texts[:MOST_LINES]]
    if len(texts) > MOST_LINES:
        shown.append(f"and {len(texts) - MOST_LINES:,} more")
    role = ' role="alert"' if kind == "fault" else ""
    return "".join(f'<p class="line {kind}"{role}>{escape(text)}</p>' for text in shown)


def progress(view: View) -> str:
    """How far a job is, with the images of its last step, and what went wrong."""
    parts = []
    if view.status in OVER:
        text = OVER[view.status][bool(view.results)]
        text += HOW_TO_SLIDE if any(item.sheet for item in view.results) else ""
        parts.append(f'<p class="state {view.status}">{text}</p>')
    else:
        percent = round(100 * view.share)
        parts.append(
            f'<p class="state">{escape(view.text)}</p><div class="bar-outer" role="progressbar" '
            f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}">'
            f'<div style="width:{percent}%"></div></div>'
        )
    parts += [lines(view.faults, "fault"), lines(view.notes, "note")]
    if view.preview:
        parts.append(
            f'<figure class="preview"><img src="{view.preview}" alt="the image at this step">'
            "<figcaption>At this step</figcaption></figure>"
        )
    return f'<div class="job">{"".join(parts)}</div>'


def results(items: Sequence[Result]) -> str:
    """All finished pictures: sliders between before and after, or the pictures alone."""
    kind = "pairs" if any(item.sheet for item in items) else "pictures"
    count = f" n{min(len(items), 4)}"
    body = "".join(_figure(item) for item in items)
    return f'<div class="results {kind}{count}">{body}</div>' if items else ""


def _figure(item: Result) -> str:
    link = escape(address(item.file))
    name = escape(item.caption)
    save = f'<a href="{link}" download="{escape(item.file.name)}">Save</a>'
    if item.sheet is None:
        body = (
            f'<a href="{link}" target="_blank"><img loading="lazy" src="{link}" alt="{name}"></a>'
        )
    else:
        body = sliders(item.sheet, escape(address(item.sheet)), item.caption)
    return f"<figure>{body}<figcaption><span>{name}</span>{save}</figcaption></figure>"
