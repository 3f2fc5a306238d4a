"""Looks and scripts of the page, which are inside it, so that it loads nothing from outside."""

from __future__ import annotations

from cascade.bulk.slider_page import SCRIPT, SLIDER_STYLE
from cascade.reporting.page import STYLE

SLIDER_RULES = SLIDER_STYLE[SLIDER_STYLE.index(".pair{") :]  # without those of a whole page
REPORT_RULES = (
    f".report{{{STYLE.replace(':root', '&')}}}"  # rules of a whole page, for a part of it
)
CSS = (
    """
:root{--ink:#1d2129;--soft:#5c6470;--rule:#e3e6ea;--panel:#f6f7f9;--line:#2563a8;--bad:#b3261e}
.dark{--ink:#e4e7ec;--soft:#9aa3b0;--rule:#2e343d;--panel:#1c2027;--line:#6aa9ee;--bad:#ef7a72}
.gradio-container{width:100%!important;max-width:76rem!important;margin:0 auto!important}
.gradio-container .main{width:100%!important}
@media(max-width:480px){.gradio-container .main{padding:.6rem .8rem!important}
.tab-container button{padding:0 .55rem!important}}
.title h1{font-size:1.6rem;margin:.2rem 0 0}
.title p,.lead p{color:var(--soft);margin:.15rem 0 .4rem;max-width:44rem}
.lead p{margin:.3rem 0 .6rem}
.job .state{font-size:1.02rem;margin:0 0 .5rem;overflow-wrap:anywhere}
.job .done{font-weight:600}
.line{margin:.15rem 0;overflow-wrap:anywhere;font-size:.92rem}
.line.fault{color:var(--bad)}
.line.note{color:var(--soft)}
.bar-outer{height:.6rem;border-radius:.3rem;background:var(--rule);overflow:hidden;margin:.4rem 0}
.bar-outer div{height:100%;background:var(--line);transition:width .3s}
.preview{margin:.6rem 0}
.preview img{max-width:100%;max-height:28rem;border-radius:4px}
.preview figcaption{color:var(--soft);font-size:.85rem}
.empty{border:1px dashed var(--rule);border-radius:8px;padding:2.2rem 1rem;text-align:center;
color:var(--soft)}
.results{display:grid;gap:1.2rem;grid-template-columns:minmax(0,1fr)}
.results.pairs.n2,.results.pairs.n3,.results.pairs.n4{
grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr))}
.results.pictures{grid-template-columns:repeat(auto-fill,minmax(min(100%,9.5rem),1fr));gap:.8rem}
.results.pictures.n1{grid-template-columns:minmax(0,26rem)}
.results figure{margin:0;min-width:0}
.results figcaption{display:flex;justify-content:space-between;gap:.8rem;font-size:.88rem;
color:var(--soft);overflow-wrap:anywhere}
.results a{color:var(--line)}
.results.pictures img{width:100%;display:block;border-radius:4px}
.pair,.results.pairs .pair{width:100%!important}
.pair img{margin:0!important}
.pair .bar{z-index:1}
.pair .bar::after{content:"\\2194";position:absolute;left:50%;top:50%;width:2rem;height:2rem;
margin:-1rem 0 0 -1rem;border-radius:50%;background:#fff;color:#222;box-shadow:0 0 4px #0009;
display:flex;align-items:center;justify-content:center;font-size:1.1rem}
.pair .bar{overflow:visible!important}
.pair input{z-index:2}
.paint{--colour:#8f2f24}
.paint .tools{display:flex;flex-wrap:wrap;gap:.5rem .8rem;align-items:center;margin-bottom:.5rem;
font-size:.9rem}
.paint .tools label{display:flex;align-items:center;gap:.4rem}
.paint .tools input[type=range]{width:7rem}
.paint .tools input[type=color]{width:2.4rem;height:1.9rem;padding:0;border:1px solid var(--rule);
border-radius:4px;background:none}
.paint .tools button{border:1px solid var(--rule);border-radius:6px;padding:.25rem .7rem;
font-size:.9rem;font-weight:400;line-height:1.3}
.paint .tools .swatch{width:1.7rem;height:1.7rem;padding:0;border-radius:50%}
.paint .swatches{display:flex;flex-wrap:wrap;gap:.3rem}
.paint .sheet{position:relative;line-height:0}
.paint .sheet img{width:100%;border-radius:4px;margin:0}
.paint canvas{position:absolute;inset:0;width:100%;height:100%;cursor:crosshair;touch-action:none}
.paint[data-colour] canvas{opacity:.6}
.report h2{border:none}
.report .tools{display:none}
"""
    + SLIDER_RULES
    + REPORT_RULES
)
PAINTING_SCRIPT = """
(() => {
  const canvasOf = event => event.target.closest && event.target.closest(".paint canvas");
  const redraw = canvas => {
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of canvas.strokes || []) {
      pen.strokeStyle = stroke.colour;
      pen.lineWidth = stroke.width;
      pen.beginPath();
      stroke.points.forEach(([x, y], i) => i ? pen.lineTo(x, y) : pen.moveTo(x, y));
      if (stroke.points.length == 1) pen.lineTo(stroke.points[0][0] + 0.01, stroke.points[0][1]);
      pen.stroke();
    }
  };
  const place = (event, canvas) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * canvas.width,
            (event.clientY - box.top) / box.height * canvas.height];
  };
  document.addEventListener("pointerdown", event => {
    const canvas = canvasOf(event);
    if (!canvas || event.button) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    const paint = canvas.closest(".paint");
    const percent = Number(paint.querySelector(".brush input").value);
    canvas.strokes = canvas.strokes || [];
    canvas.strokes.push({
      colour: paint.dataset.colour || paint.querySelector("input[type=color]").value,
      width: Math.max(canvas.width, canvas.height) * percent / 100,
      points: [place(event, canvas)],
    });
    redraw(canvas);
  });
  document.addEventListener("pointermove", event => {
    const canvas = canvasOf(event);
    if (!canvas || !canvas.hasPointerCapture(event.pointerId)) return;
    canvas.strokes[canvas.strokes.length - 1].points.push(place(event, canvas));
    redraw(canvas);
  });
  document.addEventListener("click", event => {
    const button = event.target.closest && event.target.closest(".paint button");
    if (!button) return;
    const paint = button.closest(".paint"), canvas = paint.querySelector("canvas");
    if (button.dataset.swatch) {
      paint.querySelector("input[type=color]").value = button.dataset.swatch;
    } else {
      canvas.strokes = button.dataset.paint == "undo" ? (canvas.strokes || []).slice(0, -1) : [];
      redraw(canvas);
    }
  });
  window.cascadeStrokes = name => {
    const canvas = document.querySelector("#" + name + " canvas");
    return canvas && (canvas.strokes || []).length ? canvas.toDataURL("image/png") : "";
  };
})();
"""
HEAD = (
    f"<style>{CSS}</style><script>{SCRIPT}{PAINTING_SCRIPT}</script>"  # Gradio rewrites its own css
)


def with_strokes(name: str) -> str:
    """JavaScript of an event that puts the strokes of a painting in place of its last input."""
    return (
        "(...values) => { values[values.length - 1] = window.cascadeStrokes("
        f"'{name}'); return values; }}"
    )
