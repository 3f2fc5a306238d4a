"""Puts the page together from the tabs that the models can serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr

from cascade.ui import (
    colouring_tab,
    editing_tab,
    generating_tab,
    restoring_tab,
    run_tab,
    upscaling_tab,
)
from cascade.ui.models import Model
from cascade.ui.panel import Site
from cascade.ui.sessions import REPORT_S

Build = Callable[[Site, Sequence[Model]], None]
TABS: tuple[tuple[str, str, Build], ...] = (
    ("upscale", "Upscale", upscaling_tab.build),
    ("colourise", "Colourise", colouring_tab.build),
    ("restore", "Restore", restoring_tab.build),
    ("generate", "Generate", generating_tab.build),
    ("edit", "Edit", editing_tab.build),
)
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO_FONTS = ["ui-monospace", "Menlo", "Consolas", "monospace"]


def build_page(site: Site, models: Sequence[Model], run: Path | None = None) -> gr.Blocks:
    """Make the page.

    Args:
        site: what all tabs share.
        models: the models; each tab gets those that it can use, and a tab without any is left out.
        run: folder of a training run to show; None for no run.
    """
    with gr.Blocks(title="Cascade", analytics_enabled=False) as page:
        gr.HTML(f"<h1>Cascade</h1><p>{_about(site)}</p>", elem_classes="title")
        with gr.Tabs():
            if run is not None:
                with gr.Tab("Training run", id="run"):
                    run_tab.build(page, run)
            for name, title, build in TABS:
                its_models = [model for model in models if name in model.tabs]
                if its_models:
                    with gr.Tab(title, id=name):
                        build(site, its_models)

        def end(request: gr.Request) -> None:
            site.sessions.end(request.session_hash)

        def hear(request: gr.Request) -> None:
            site.sessions.hear(request.session_hash)

        page.unload(end)
        gr.Timer(REPORT_S).tick(hear, queue=False, show_progress="hidden", api_visibility="private")
    return page


def _about(site: Site) -> str:
    """What the page does, in a few sentences."""
    text = "Restores and generates images."
    if site.is_local:
        text = "Restores and generates images on this computer. Nothing is sent anywhere else."
    if site.signer is not None:
        text += " Results are signed with the certificate of whoever runs this page."
    return text


def theme() -> gr.themes.Base:
    """A theme that needs no fonts from elsewhere."""
    return gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONO_FONTS
    )
