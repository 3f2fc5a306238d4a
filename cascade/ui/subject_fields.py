"""Fields for what a pipeline should draw: a prompt where it takes text, a menu for each label."""

from __future__ import annotations

from typing import Any

import gradio as gr

from cascade.ui.models import Model


class SubjectFields:
    """The fields of one model.

    Args:
        model: the model, which decides what there is to choose.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def build(self) -> None:
        """Add the fields."""
        has_text = self.model.takes_text
        self.prompt = gr.Textbox(
            "", label="What to draw", placeholder="a cat with heart eyes", visible=has_text
        )
        self.negative = gr.Textbox("", label="What not to draw", visible=has_text)
        self.classes = [
            gr.Dropdown(
                [("any", ""), *((name, name) for name in names)], value="", label=field.capitalize()
            )
            for field, names in self.model.fields.items()
        ]

    @property
    def inputs(self) -> list[Any]:
        """The fields in the order in which an event gets their values."""
        return [self.prompt, self.negative, *self.classes]
