"""The documentation: its links lead somewhere, and it describes every key of a recipe."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from cascade.conditioning.degradation import PARTS, Degradation
from cascade.conditioning.kinds import CONDITIONS
from cascade.conditioning.low_resolution import GeneratedOptions
from cascade.extras import EXTRAS
from cascade.recipe.sections import (
    AutoencoderKLSection,
    AutoencoderTinySection,
    AutoencodingSection,
    DataSection,
    DiffusionSection,
    LoraSection,
    MlpSection,
    SpaceSection,
    StudentSection,
    TrainedSection,
    TrainSection,
    TransformerSection,
    UNetSection,
    condition_section,
    sampling_section,
)
from cascade.sampling.settings import SamplingSettings

CHECKOUT = Path(__file__).parents[1]
PAGES = [
    *CHECKOUT.glob("*.md"),
    *(
        path
        for folder in ("docs", "benchmarks", "pipelines")
        for path in (CHECKOUT / folder).rglob("*.md")
    ),
]
SECTIONS = (
    SpaceSection,
    condition_section(),
    *(kind.recipe for kind in CONDITIONS.values() if kind.recipe is not None),
    GeneratedOptions,
    Degradation,
    *PARTS.values(),
    LoraSection,
    TrainedSection,
    UNetSection,
    TransformerSection,
    AutoencoderKLSection,
    AutoencoderTinySection,
    AutoencodingSection,
    MlpSection,
    DiffusionSection,
    DataSection,
    TrainSection,
    StudentSection,
    sampling_section(),
)
HEADINGS = {
    "space": SpaceSection,
    "diffusion": DiffusionSection,
    "data": DataSection,
    "train": TrainSection,
    "student": StudentSection,
    "autoencoding": AutoencodingSection,
    "sampling": SamplingSettings,
}
IN_WORDS = {  # defaults that a page describes instead of stating them
    "required",
    "empty",
    "first bands",
    "whole image",
    "all numbers",
    "user's cache",
    "as `pairs`",
}
LINK = re.compile(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_to_files_and_headings(page):
    for path, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_recipe_key_is_described(section: type):
    text = (CHECKOUT / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    described = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    keys = getattr(section, "model_fields", None) or section.__dataclass_fields__
    assert set(keys) - {"kind"} <= described


def test_every_extra_is_described():
    page = (CHECKOUT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, flags=re.MULTILINE))
    assert {name: f"{text[0].lower()}{text[1:]}" for name, text in rows.items()} == {
        name: f"{extra.purpose[0].lower()}{extra.purpose[1:]}" for name, extra in EXTRAS.items()
    }


def default_of(section: type, key: str) -> Any:
    """The default of a key, as a recipe would state it."""
    if hasattr(section, "model_fields"):
        value = section.model_fields[key].get_default(call_default_factory=True)
    else:
        value = next(each.default for each in fields(section) if each.name == key)
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_defaults_of_recipe_keys_are_those_of_the_classes(heading):
    section = HEADINGS[heading]
    page = (CHECKOUT / "docs" / "recipes.md").read_text(encoding="utf-8")
    part = re.split(rf"^### {heading}$", page, flags=re.MULTILINE)[1]
    part = re.split(r"^##", part, flags=re.MULTILINE)[0]
    keys = getattr(section, "model_fields", None) or {each.name for each in fields(section)}
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", part, flags=re.MULTILINE)
    stated = {key: text.strip() for key, text in rows if key in keys}
    assert stated
    for key, text in stated.items():
        if text not in IN_WORDS:
            value = yaml.safe_load(text.strip("`").replace(",", "" if text[0].isdigit() else ","))
            value = float(value) if re.fullmatch(r"\d+e-\d+", text) else value
            assert value == default_of(section, key), key


def messages() -> list[str]:
    """All texts in the package, with `…` in place of what is filled in."""
    texts = []
    for path in (CHECKOUT / "cascade").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def test_the_error_messages_that_are_explained_exist():
    page = (CHECKOUT / "docs" / "faq.md").read_text(encoding="utf-8")
    texts = messages()
    headings = re.findall(r"^### `(.+)`$", page, flags=re.MULTILINE)
    assert len(headings) > 15
    for heading in headings:
        parts = [part for part in heading.split("…") if len(part) > 8]
        assert parts, heading
        assert any(all(part in text for part in parts) for text in texts), heading
