"""A page with a before/after slider for every sheet in a folder.

The page needs no network. Its pictures are the sheets themselves, which hold before and after side
by side: each slider lays two cut-outs of one sheet over each other. Browsers load a sheet only when
it scrolls into view, so thousands of them are no burden.
"""

from __future__ import annotations

import os
from html import escape
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from cascade.bulk.sheets import Pair, Size, pairs_of
from cascade.errors import OutputError
from cascade.imaging.marks import SHEET
from cascade.reporting.page import STYLE
from cascade.reporting.words import counted
from cascade.saving.atomic import atomic_file

NAME = "index.html"
PAIR = '<div class="pair"'  # begins each slider
LEAST_WIDTH_PX = 320  # at which small pictures are displayed
HEAD = f'<meta name="generator" content="{SHEET}">'
SLIDER_STYLE = """
main{max-width:52rem}
figure{margin:0 0 2.2rem;content-visibility:auto;contain-intrinsic-size:auto 30rem}
figcaption{display:flex;justify-content:space-between;gap:1rem;overflow-wrap:anywhere}
.pair{position:relative;overflow:hidden;border-radius:4px;margin-bottom:.8rem;
width:min(100%,var(--shown));aspect-ratio:var(--w)/var(--h);--cut:50%;background:var(--panel)}
.pair div{position:absolute;inset:0;overflow:hidden}
.pair .after{clip-path:inset(0 0 0 var(--cut))}
.pair img{position:absolute;max-width:none;height:auto;border-radius:0;
width:calc(var(--sheet)/var(--w)*100%);left:calc(var(--x)/var(--w)*-100%);
top:calc(var(--y)/var(--h)*-100%)}
.pair .bar{left:var(--cut);right:auto;width:2px;margin-left:-1px;background:#fff;
box-shadow:0 0 3px #000;pointer-events:none}
.pair input{position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;cursor:ew-resize;
touch-action:pan-y}
.pair:focus-within{outline:2px solid var(--line);outline-offset:2px}
"""
SCRIPT = """
document.addEventListener("input", event => {
  const pair = event.target.closest(".pair");
  if (pair) pair.style.setProperty("--cut", event.target.value + "%");
});
"""


def page_file(folder: Path) -> Path:
    """The file of the page of a folder."""
    return folder / NAME


def check_page(folder: Path) -> None:
    """Check that the page would not replace a file of somebody else.

    Raises:
        OutputError: if it would.
    """
    file = page_file(folder)
    if not os.path.lexists(file):
        return
    if not file.is_file() or HEAD not in file.read_text(encoding="utf-8", errors="replace")[:2000]:
        raise OutputError(f"{file} already exists and is not a page of this command; move it away.")


def write_page(folder: Path, command: str) -> None:
    """Write the page of all sheets in a folder and the folders below it; none if it has no sheet.

    Args:
        folder: folder of the sheets; the results are in the folder above it.
        command: the name of the command, for the title.

    Raises:
        OutputError: if the page cannot be written.
    """
    figures = [_figure(folder, path) for path in sorted(folder.rglob("*.jpg"))]
    figures = [figure for figure in figures if figure]
    if not figures:
        return
    title = f"{command}: before and after"
    count = counted(len(figures), "result")
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{HEAD}'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{SLIDER_STYLE}</style></head>\n<body><main>"
        f'<h1>{escape(title)}</h1><p class="lead">{count}. Drag across an image: left is before, '
        f"right is after.</p>\n{''.join(figures)}</main><script>{SCRIPT}</script></body></html>\n"
    )
    with atomic_file(page_file(folder)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sliders(path: Path, link: str, name: str) -> str:
    """The sliders of a before/after sheet as HTML; empty if the file is none.

    Args:
        path: file of the sheet.
        link: address of the sheet on the page, escaped.
        name: name of the picture.
    """
    size, pairs = pairs_of(path)
    return "".join(_slider(link, size, pair, name) for pair in pairs)


def _figure(folder: Path, path: Path) -> str:
    """A sheet with its caption; empty if the file is none."""
    place = PurePosixPath(path.relative_to(folder).as_posix())
    name = _text(str(place).removesuffix(".jpg"))
    result = place.with_suffix("")  # the name of the result, unless it was too long
    caption = escape(name)
    if (folder.parent / result).is_file():
        caption = f'<a href="../{_link(result)}">{caption}</a>'
    pairs = sliders(path, _link(place), name)
    if not pairs:
        return ""
    middle = "<span>below: the middle at full size</span>" if pairs.count(PAIR) > 1 else ""
    return f"<figure><figcaption><span>{caption}</span>{middle}</figcaption>{pairs}</figure>\n"


def _slider(link: str, size: Size, pair: Pair, name: str) -> str:
    width, height = size
    shown_px = max(pair.width, LEAST_WIDTH_PX)
    style = (
        f"--w:{pair.width};--h:{pair.height};--sheet:{width};--y:{pair.top};--shown:{shown_px}px"
    )
    image = f'<img loading="lazy" src="{link}" width="{width}" height="{height}" alt="">'
    label = escape(f"before and after of {name}")
    return (
        f'{PAIR} style="{style}"><div style="--x:{pair.left}">{image}</div>'
        f'<div class="after" style="--x:{pair.right}">{image}</div><div class="bar"></div>'
        f'<input type="range" value="50" aria-label="{label}"></div>'
    )


def _link(place: PurePosixPath) -> str:
    """The address of a file relative to the page; names need not be text."""
    return escape(quote(os.fsencode(str(place))))


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")
