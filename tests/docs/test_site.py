"""The pages of the documentation's site that are made from the checkout."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).parents[2]
CARDS = sorted((CHECKOUT / "pipelines").glob("*/README.md"))


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """The hook that makes the pages."""
    spec = spec_from_file_location("docs_site", CHECKOUT / "docs" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_parts_shows_every_example_that_contributing_names(site):
    text = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = re.findall(r"\(tests/examples/test_(\w+)\.py\)", text)
    headings = re.findall(r"^## (.+)$", site.parts_page(), flags=re.MULTILINE)
    assert "a_task_of_your_own" in names
    assert {each.replace("_", " ").capitalize() for each in names} == set(headings)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_the_gallery_has_figures_and_limits_of_every_model(site, card):
    name, text = card.parent.name, card.read_text(encoding="utf-8")
    section = site.gallery_section(name, text)
    assert section in site.gallery_page()
    figures, limits = section.split("\n### ")[1:]
    assert re.search(r"^\|---", figures, flags=re.MULTILINE)
    assert re.search(r"^- \w", limits, flags=re.MULTILINE)
    for link, _ in site.links(section, "gallery.md"):
        assert (CHECKOUT / site.repository_path(link)).is_file(), link


def test_a_card_without_limits_is_named(site):
    card = "---\nlicense: mit\n---\n# a\n\nDraws.\n\n## Figures\n\nAs measured:\n\n| x |\n|---|\n"
    with pytest.raises(LookupError, match="the card of a has no section Limits; add one"):
        site.gallery_section("a", card)
    section = site.gallery_section("a", card + "\n## Limits\n\n- Few [lines](b.png).\n")
    assert section == (
        "## a\n\nDraws.\n\n### Figures\n\nAs measured:\n\n| x |\n|---|\n\n### Limits\n\n"
        "- Few [lines](../pipelines/a/b.png).\n\n[The card](../pipelines/a/README.md)"
    )
