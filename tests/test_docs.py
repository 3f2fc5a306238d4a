"""The documentation: its links lead somewhere, and every key of a recipe is described."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cascade.cli.main import _verbs
from cascade.extras import EXTRAS
from cascade.recipe.describing import KeyGroup, find_key_groups
from cascade.recipe.sections import StageRecipe

CHECKOUT = Path(__file__).parents[1]
PAGES = [
    *CHECKOUT.glob("*.md"),
    *(
        path
        for folder in ("docs", "benchmarks", "pipelines")
        for path in (CHECKOUT / folder).rglob("*.md")
    ),
]
NO_SECTIONS = {"kind", "name", "description"}  # keys that hold a value
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


@pytest.mark.parametrize(
    "group", find_key_groups(), ids=lambda group: f"{group.place} {group.choice}".strip()
)
def test_every_recipe_key_is_described(group: KeyGroup):
    assert group.about
    for key in group.keys:
        assert key.values, key.name
        assert len(key.meaning) > 8, key.name


def test_the_page_of_recipes_explains_every_section():
    page = (CHECKOUT / "docs" / "recipes.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^### (\w+)$", page, flags=re.MULTILINE))
    assert headings == StageRecipe.model_fields.keys() - NO_SECTIONS
    places = re.findall(r"`cascade keys (\S+)`", page)
    assert headings <= set(places)
    assert all(find_key_groups(place) for place in places)


def test_every_extra_is_described():
    page = (CHECKOUT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, flags=re.MULTILINE))
    assert {name: f"{text[0].lower()}{text[1:]}" for name, text in rows.items()} == {
        name: f"{extra.purpose[0].lower()}{extra.purpose[1:]}" for name, extra in EXTRAS.items()
    }


def test_the_commands_that_leave_metadata_out_are_named():
    page = (CHECKOUT / "docs" / "command-line.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"[^.]*leave record and mark out with `--no-metadata`", page)
    named = set(re.findall(r"`([a-z]+)`", sentence))
    verbs = {name: verb for name, verb in _verbs().items() if not verb.hidden}
    assert named == {name for name, verb in verbs.items() if "--no-metadata" in verb.options()}


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
