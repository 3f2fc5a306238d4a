"""A command whose help lists names that are looked up only when the help is shown."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

SAMPLER_NAMES = "{sampler names}"  # placeholder for all names in the help of an option


class Verb(TyperCommand):
    """A command that imports the samplers, to list their names, only when its help is shown."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Fill in the names and show the help."""
        for option in self.params:
            text = getattr(option, "help", None) or ""
            if SAMPLER_NAMES in text:
                from cascade.sampling.samplers.table import sampler_names

                option.help = text.replace(  # pyright: ignore[reportAttributeAccessIssue]
                    SAMPLER_NAMES, ", ".join(sampler_names())
                )
        super().format_help(ctx, formatter)
