"""Self-contained HTML pages for a screen, a phone and paper.

A page loads nothing and runs nothing; its content security policy enforces this. All text is
escaped, because the names of classes and files can come from anyone.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import NewType

from PIL import Image

Html = NewType("Html", str)  # already escaped
MAX_PNG_BYTES = 600_000
MAX_SIDE_PX = 1200
MIN_WIDTH_PX = 480
STYLE = """
:root{color-scheme:light dark;--ink:#1d2129;--soft:#5c6470;--rule:#e3e6ea;--paper:#fff;
--panel:#f6f7f9;--line:#2563a8;--red:#c43c35;--green:#2c8a4b;--blue:#2f6fd0}
@media (prefers-color-scheme:dark){:root{--ink:#e4e7ec;--soft:#9aa3b0;--rule:#2e343d;
--paper:#14171c;--panel:#1c2027;--line:#6aa9ee;--red:#ef7a72;--green:#63c384;--blue:#7aabff}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:64rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:2.6rem 0 .9rem;padding-bottom:.35rem;
border-bottom:1px solid var(--rule)}
p{margin:.4rem 0;max-width:44rem}
.lead,.note,figcaption,th,dt{color:var(--soft)}
.note{font-size:.875rem;margin-top:.8rem}
dl{display:grid;
grid-template-columns:repeat(auto-fill,minmax(10rem,1fr));gap:.9rem 1.5rem;margin:0}
dt{font-size:.8rem}
dd{margin:0;overflow-wrap:anywhere}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1.5rem}
figure{margin:0;min-width:0}
figcaption{font-size:.875rem;margin-bottom:.35rem}
.keys{display:inline-flex;flex-wrap:wrap;gap:.1rem .8rem;margin-left:.8rem}
.key i{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.35em}
svg{display:block;width:100%;height:auto}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--soft)}
.rule{stroke:var(--rule)}
.mark{stroke:var(--soft);stroke-dasharray:4 3}
.line,.faint{fill:none;stroke-width:1.8;stroke-linejoin:round}
.faint{stroke-width:1;opacity:.3}
img{display:block;max-width:100%;height:auto;border-radius:4px}
img.small{image-rendering:pixelated}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;font-weight:400;padding:.2rem 1.6rem .2rem 0;
border-bottom:1px solid var(--rule);overflow-wrap:anywhere}
.wide{overflow-x:auto}
.wide td,.wide th{min-width:5.5rem;overflow-wrap:normal;vertical-align:top;padding-right:.9rem}
.chart{max-width:36rem}
.columns{columns:14rem;column-gap:2rem}
.columns div{display:flex;justify-content:space-between;gap:1rem;break-inside:avoid;font-size:.9rem;
border-bottom:1px solid var(--rule);padding:.12rem 0;overflow-wrap:anywhere}
.columns span:last-child{color:var(--soft);font-variant-numeric:tabular-nums}
pre{background:var(--panel);padding:.9rem 1rem;border-radius:6px;margin:0;white-space:pre-wrap;
overflow-wrap:anywhere;font:.82rem/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--rule:#ccc;--paper:#fff;
--panel:#fff;--line:#2563a8;--red:#c43c35;--green:#2c8a4b;--blue:#2f6fd0}
main{max-width:none;padding:0}figure,dl,tr{break-inside:avoid}h2{break-after:avoid}
body{font-size:11pt}pre{border:1px solid var(--rule)}}
"""


def page(title: str, lead: str, sections: Sequence[tuple[str, Html]]) -> str:
    """Put a page together.

    Args:
        title: title of the page.
        lead: one sentence below the title.
        sections: heading and content of each section; sections without content are left out.

    Returns:
        The text of an HTML file.
    """
    body = "".join(
        f"<section><h2>{escape(head)}</h2>{part}</section>" for head, part in sections if part
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{body}</main></body></html>\n'
    )


def joined(*parts: Html) -> Html:
    """Parts one below another."""
    return Html("".join(parts))


def side_by_side(parts: Sequence[Html]) -> Html:
    """Parts in as many columns as fit on the screen."""
    return Html(f'<div class="grid">{"".join(parts)}</div>') if any(parts) else Html("")


def note(text: str) -> Html:
    """A sentence in small print."""
    return Html(f'<p class="note">{escape(text)}</p>')


def code(text: str) -> Html:
    """Text with its own line breaks in a fixed-width font."""
    return Html(f"<pre>{escape(text)}</pre>")


def facts(values: Mapping[str, str]) -> Html:
    """A grid of names and short values."""
    pairs = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in values.items())
    return Html(f"<dl>{''.join(pairs)}</dl>")


def counts(values: Mapping[str, int]) -> Html:
    """Names with one number each, in columns."""
    rows = (f"<div><span>{escape(k)}</span><span>{v:,}</span></div>" for k, v in values.items())
    return Html(f'<div class="columns">{"".join(rows)}</div>')


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table of text.

    Args:
        head: one heading per column.
        rows: the cells of each row.
    """
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows
    )
    return Html(f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>")


def wide(part: Html) -> Html:
    """A part that may be wider than the screen and then scrolls on its own."""
    return Html(f'<div class="wide">{part}</div>')


def picture(image: Image.Image, caption: str) -> Html:
    """Embed a picture: lossless, or as a smaller JPEG if the PNG would be large.

    Args:
        image: the picture, of any size; a small one is displayed enlarged.
        caption: text above the picture.
    """
    kind, data = "png", _encode(image, "PNG")
    if len(data) > MAX_PNG_BYTES:
        smaller = image.convert("RGB")
        smaller.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
        kind, data = "jpeg", _encode(smaller, "JPEG")
    zoom = max(1, MIN_WIDTH_PX // image.width)  # a whole number, so that pixels stay square
    small = f' class="small" width="{image.width * zoom}"' if zoom > 1 else ""
    text = base64.b64encode(data).decode("ascii")
    return Html(
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<img{small} alt="{escape(caption)}" src="data:image/{kind};base64,{text}"></figure>'
    )


def _encode(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, quality=88)
    return file.getvalue()
