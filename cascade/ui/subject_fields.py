"""Fields for the model, and for what it should draw: a prompt if it takes text, a menu per label.

Each model has fields of its own, and only those of the chosen one can be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from cascade.ui import fields
from cascade.ui.jobs import Job
from cascade.ui.models import Model
from cascade.ui.panel import Panel, Site

EXAMPLE_PROMPT = "a smiling cat with heart-eyes"  # emoji-1024 draws it without the text encoder


class SubjectFields:
    """A menu of models, and the fields of each of them.

    Args:
        models: the models, of which the first one is chosen at first.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = {model.name: model for model in models}

    def build(self) -> None:
        """Add the menu and the fields."""
        self.model = fields.model_menu(list(self.models.values()))
        self._fields: dict[str, list[Any]] = {}
        groups = []
        for name, model in self.models.items():
            with gr.Column(visible=not groups) as group:
                self._fields[name] = _fields_of(model)
            groups.append(group)
        self.on_model(
            lambda model: [gr.update(visible=each is model) for each in self.models.values()],
            groups,
        )

    def on_model(self, change: Callable[[Model], Any], outputs: Sequence[Any]) -> None:
        """Change the page when another model is chosen.

        Args:
            change: called with the model; returns the changes of the outputs.
            outputs: what changes.
        """

        def choose(name: str) -> Any:
            return change(self.models[name])

        self.model.change(
            choose,
            self.model,
            list(outputs),
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )

    def connect(
        self,
        panel: Panel,
        before: Sequence[Any],
        work: Callable[..., None],
        *,
        after: Sequence[Any] = (),
        js: str | None = None,
    ) -> None:
        """Connect the buttons of a panel; see `Panel.connect`.

        Args:
            panel: the panel.
            before: the fields whose values the work gets first; the menu of models is among them.
            work: does the work, called as `work(job, site, *before, prompt, negative, *classes,
                *after)`, with the values of the chosen model's fields.
            after: the fields whose values the work gets last.
            js: JavaScript that changes the values in the browser before they are sent.
        """
        start, menu = len(before), list(before).index(self.model)
        end = start + sum(map(len, self._fields.values()))

        def work_of_model(job: Job, site: Site, *values: Any) -> None:
            own = self._own(values[menu], values[start:end])
            work(job, site, *values[:start], *own, *values[end:])

        inputs = [*before, *(each for own in self._fields.values() for each in own), *after]
        panel.connect(inputs, work_of_model, js=js)

    def _own(self, model: str, values: Sequence[Any]) -> Sequence[Any]:
        """The values of one model's fields among those of all."""
        start = 0
        for name, own in self._fields.items():
            if name == model:
                return values[start : start + len(own)]
            start += len(own)
        raise KeyError(model)


def _fields_of(model: Model) -> list[Any]:
    """Add the fields of a model: prompt, negative prompt, and a menu for each label field."""
    prompt = gr.Textbox(
        "",
        label="Prompt",
        placeholder=EXAMPLE_PROMPT,
        visible=model.takes_text,
    )
    negative = gr.Textbox("", label="Negative prompt", visible=model.takes_text)
    classes = [
        gr.Dropdown(
            [("any", ""), *((name, name) for name in names)], value="", label=field.capitalize()
        )
        for field, names in model.fields.items()
    ]
    return [prompt, negative, *classes]
