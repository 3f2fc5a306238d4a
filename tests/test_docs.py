"""The documentation: its links lead somewhere, and it describes every key of a recipe."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cascade.conditioning.degradation import PARTS, Degradation
from cascade.conditioning.kinds import CONDITIONS
from cascade.conditioning.low_resolution import GeneratedOptions
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
