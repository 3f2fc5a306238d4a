"""Fields that several tabs have."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from cascade.errors import CascadeError, ContractError
from cascade.reporting.words import counted
from cascade.ui import showing
from cascade.ui.limits import MIB, Limits
from cascade.ui.models import Model
from cascade.ui.panel import Site

LARGEST_SEED = 2**31 - 1


def lead(text: str) -> None:
    """One or two sentences at the head of a tab."""
    gr.HTML(f"<p>{text}</p>", elem_classes="lead")


def model_menu(models: Sequence[Model]) -> gr.Dropdown:
    """A menu of models; hidden if there is only one."""
    return gr.Dropdown(
        [(model.title, model.name) for model in models],
        value=models[0].name,
        label="Model",
        visible=len(models) > 1,
        filterable=False,
    )


def seed_fields(most_variants: int = 8, *, label: str = "Seeds side by side") -> list[Any]:
    """The seed, a button for another one, and the number of seeds."""
    with gr.Row(equal_height=True):
        seed = gr.Number(
            0, label="Seed", info="The same seed gives the same result.", precision=0, minimum=0
        )
        another = gr.Button("Another seed", size="md", min_width=120)
    variants = gr.Slider(1, most_variants, value=1, step=1, label=label)
    another.click(random_seed, None, seed, queue=False, api_visibility="private")
    return [seed, variants]


def random_seed() -> int:
    """A seed that is short enough to write down."""
    return random.randint(1, 9999)


def steps_field() -> gr.Number:
    """The number of sampling steps."""
    return gr.Number(
        None, label="Steps", info="Fewer are quicker. Empty: the model's own.", precision=0,
        minimum=1, maximum=1000,
    )  # fmt: skip


def upload(label: str, *, many: bool, name: str) -> gr.File:
    """Where pictures are dropped. They are not opened here: the limits come first."""
    return gr.File(
        label=label,
        file_count="multiple" if many else "single",
        type="filepath",
        height=170,
        elem_id=name,
    )


def uploaded(value: Any) -> list[str]:
    """The paths that an upload field holds."""
    if value is None:
        return []
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def look_at(site: Site, visitor: str | None, value: Any) -> tuple[list[Path], str]:
    """Check what a visitor has uploaded: the good pictures, and a few lines about them."""
    paths = [Path(each) for each in uploaded(value)]
    site.sessions.own(site.sessions.of(visitor), paths)
    good, faults = site.limits.sort(paths)
    text = showing.lines(faults, "fault")
    if good:
        mib = sum(path.stat().st_size for path in good) / MIB
        text = showing.lines([f"{counted(len(good), 'picture')}, {mib:,.1f} MiB"], "note") + text
    return good, text


def painted(draw: Callable[[], str]) -> tuple[str, str]:
    """A picture to paint on, and a line about why there is none; both as HTML."""
    try:
        return draw(), ""
    except CascadeError as error:
        return "", showing.lines([str(error)], "fault")


def limits_text(limits: Limits) -> str:
    """The limits of uploads in one sentence."""
    return (
        f"At most {limits.file_mib:g} MiB and {limits.megapixels:g} megapixels a file. "
        "Your pictures are deleted when you leave the page."
    )


def whole(value: Any, name: str) -> int:
    """A whole number of a field.

    Raises:
        ContractError: if it is empty or out of range.
    """
    if value is None or not 0 <= int(value) <= LARGEST_SEED:
        raise ContractError(f"{name} must be a whole number from 0 to {LARGEST_SEED:,}.")
    return int(value)


def optional_whole(value: Any) -> int | None:
    """A whole number of a field, or None if it is empty."""
    return None if value is None else int(value)
