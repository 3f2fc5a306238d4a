"""Fields that several tabs have."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from cascade.errors import CascadeError, ContractError
from cascade.reporting.words import counted
from cascade.restoration.editing import USUAL
from cascade.ui import showing
from cascade.ui.limits import Limits
from cascade.ui.models import Model
from cascade.ui.panel import Site

LARGEST_SEED = 2**31 - 1
MOST_VARIANTS = 8


def lead(text: str) -> None:
    """One or two sentences at the head of a tab."""
    gr.HTML(f"<p>{text}</p>", elem_classes="lead")


def model_menu(models: Sequence[Model]) -> gr.Radio:
    """A choice of models; hidden if there is only one."""
    return gr.Radio(
        [(model.title, model.name) for model in models],
        value=models[0].name,
        label="Model",
        visible=len(models) > 1,
    )


def seed_field(info: str = "The same seed gives the same result.") -> gr.Number:
    """The seed, with a button that draws another one."""
    seed = gr.Number(0, label="Seed", info=info, precision=0, minimum=0)
    another = gr.Button("Another seed", size="sm")
    another.click(random_seed, None, seed, queue=False, api_visibility="private")
    return seed


def variants_field() -> gr.Slider:
    """The number of seeds."""
    return gr.Slider(1, MOST_VARIANTS, value=1, step=1, label="Seeds side by side")


def random_seed() -> int:
    """A seed that is short enough to write down."""
    return random.randint(1, 9999)


def setting_field(label: str, info: str) -> gr.Textbox:
    """A number of the sampling settings; empty for the model's own.

    A field of numbers would show an empty value as 0, which is another setting.
    """
    return gr.Textbox("", label=label, info=info, placeholder="the model's own", max_lines=1)


def steps_field() -> gr.Textbox:
    """The number of sampling steps."""
    return setting_field("Steps", "Fewer are quicker, more are finer.")


def passes_field(model: Model) -> gr.Textbox:
    """How often a stage that starts from noise goes over its steps; hidden for other models."""
    return gr.Textbox(**passes_of(model), label="Passes", max_lines=1,
        info="For a part that you paint over. Fewer are quicker and fit less well.",
    )  # fmt: skip


def passes_of(model: Model) -> dict[str, Any]:
    """Value, placeholder and visibility of the number of passes for a model.

    A student takes 1 pass alone, so that number stands there, where it can be seen.
    """
    return {
        "value": "1" if model.is_student else "",
        "placeholder": str(USUAL),
        "visible": not model.fills,
    }


def upload(label: str, *, many: bool, name: str) -> gr.File:
    """Where pictures are dropped. They are not opened here: the limits come first."""
    return gr.File(
        label=label,
        file_count="multiple" if many else "single",
        type="filepath",
        height=170,
        elem_id=name,
    )


def on_upload(field: gr.File, look: Callable[..., Any], outputs: Sequence[Any]) -> None:
    """Look at what is uploaded, one visitor at a time, since pictures are decoded for painting."""
    field.change(
        look,
        field,
        list(outputs),
        concurrency_limit=1,
        concurrency_id="look",
        show_progress="hidden",
        api_visibility="private",
    )


def pictures_upload(site: Site, name: str) -> gr.File:
    """A field for pictures, with a notice below it of what is wrong with them."""
    files = upload("Images", many=True, name=name)
    notice = gr.HTML(f'<p class="line note">{limits_text(site.limits)}</p>')

    def look(request: gr.Request, value: Any) -> str:
        return look_at(site, request.session_hash, value)[1]

    on_upload(files, look, [notice])
    return files


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
        text = showing.lines([f"{counted(len(good), 'image')} ready"], "note") + text
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
        f"At most {limits.file_mib:g} MiB and {limits.megapixels:g} megapixels a file. Your "
        "images are deleted when you leave the page."
    )


def whole(value: Any, name: str) -> int:
    """A whole number of a field.

    Raises:
        ContractError: if it is empty or out of range.
    """
    if value is None or not 0 <= int(value) <= LARGEST_SEED:
        raise ContractError(f"{name} must be a whole number from 0 to {LARGEST_SEED:,}.")
    return int(value)


def setting(value: Any, name: str) -> float | None:
    """The number of a sampling setting; None for the model's own.

    Raises:
        ContractError: if it is no number.
    """
    text = str(value or "").strip()
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ContractError(f"{name} must be a number, got {text!r}.") from error


def whole_setting(value: Any, name: str) -> int | None:
    """The whole number of a setting; None for the model's own.

    Raises:
        ContractError: if it is no whole number.
    """
    number = setting(value, name)
    if number is not None and not number.is_integer():
        raise ContractError(f"{name} must be whole, got {number:g}.")
    return None if number is None else int(number)


def steps_of(value: Any) -> int | None:
    """The number of steps that a field holds; None for the model's own.

    Raises:
        ContractError: if it is no whole number.
    """
    return whole_setting(value, "the number of steps")
