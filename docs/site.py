"""Builds the parts of the site that no file in docs/ holds; `mkdocs.yml` names it as a hook.

Files of the checkout to which pages link, such as the README, model cards and examples, are below
`repo/` in the site. The references of commands, recipe keys and Python, the gallery, and the page
of own parts are made from the package, the model cards and the tests, so that they cannot fall
behind.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import cascade
from cascade.cli.main import app
from cascade.recipe.describing import find_key_groups

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

CHECKOUT = Path(__file__).parents[1]
OUTSIDE = "repo/"  # where the site has files of the checkout that are not in docs/
KEYS = re.compile(r"(?<!\[)`cascade keys(?: ([\w.]+))?`")  # what prints the keys without the site
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)
SOURCES = {".py": "python", ".yaml": "yaml"}  # files that are shown as pages
FIGURES, LIMITS = "Figures", "Limits"  # headings of sections that every card has


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and all files of the checkout to which pages lead."""
    from mkdocs.structure.files import File

    pages = {
        "reference/commands.md": commands_page(),
        "reference/python.md": python_page(),
        "reference/keys.md": keys_page(),
        "reference/parts.md": parts_page(),
        "gallery.md": gallery_page(),
    }
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    known = {each.src_uri for each in files}
    texts = {each.src_uri: each.content_string for each in files.documentation_pages()}
    while texts:
        uri, text = texts.popitem()
        for target in sorted({target for target, _ in links(text, uri)}):
            path = CHECKOUT / repository_path(target)
            uri = page_of(target)
            if uri in known or not path.is_file():
                continue
            known.add(uri)
            if path.suffix == ".md":
                texts[uri] = path.read_text(encoding="utf-8")
                files.append(File.generated(config, uri, content=texts[uri]))
            elif path.suffix in SOURCES:
                files.append(File.generated(config, uri, content=source_page(path)))
            else:
                files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links between docs/ and the rest of the checkout to their places in the site.

    Mentions of `cascade keys` become links to the page that has the same text.
    """
    here = page.file.src_uri
    keys = posixpath.relpath("reference/keys.md", posixpath.dirname(here))

    def with_link(match: re.Match[str]) -> str:
        return f"[{match[0]}]({keys}{'#' + match[1] if match[1] else ''})"

    def moved(match: re.Match[str]) -> str:
        target = page_of(site_path(match[1], here))
        return f"]({posixpath.relpath(target, posixpath.dirname(here))}{match[2] or ''})"

    return outside_of_code(markdown, lambda text: KEYS.sub(with_link, LINK.sub(moved, text)))


def outside_of_code(markdown: str, change: Callable[[str], str]) -> str:
    """Apply a change to the parts of a page that are no code."""
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def links(text: str, here: str) -> Iterator[tuple[str, str]]:
    """The places in the site to which a page's relative links lead, and their anchors."""
    for match in LINK.finditer(FENCE.sub("", text)):
        yield site_path(match[1], here), match[2] or ""


def site_path(link: str, here: str) -> str:
    """The place in the site of what a page links to."""
    base = posixpath.dirname(repository_path(here))
    path = posixpath.normpath(posixpath.join(base, link))
    return path.removeprefix("docs/") if path.startswith("docs/") else OUTSIDE + path


def page_of(target: str) -> str:
    """The page that shows a file, or the file itself."""
    stem, suffix = posixpath.splitext(target)
    return f"{stem}.md" if suffix in SOURCES else target


def repository_path(uri: str) -> str:
    """The place in the checkout of a page of the site."""
    return uri.removeprefix(OUTSIDE) if uri.startswith(OUTSIDE) else f"docs/{uri}"


# ---- generated pages ----------------------------------------------------------------------------


def source_page(path: Path) -> str:
    """A page that shows a file."""
    language = SOURCES[path.suffix]
    code = path.read_text(encoding="utf-8")
    return f"# {path.name}\n\n```{language}\n{code}```\n"


def parts_page() -> str:
    """The tests that are examples of own parts, which [Contributing] names one by one."""
    sections = ["# Parts of your own\n\nEach example is a test of this project, so it works."]
    for path in sorted((CHECKOUT / "tests" / "examples").glob("test_*_of_your_own.py")):
        title = path.stem.removeprefix("test_").replace("_", " ").capitalize()
        sections.append(f"## {title}\n\n```python\n{path.read_text(encoding='utf-8')}```")
    return "\n\n".join(sections) + "\n"


def gallery_page() -> str:
    """All bundled models: summary, first image, first figures and limits of their cards."""
    sections = [
        "# Models\n\nThe bundled models, with their figures and limits. The cards also have more "
        "images and figures, the data and its licences, and how the models were trained."
    ]
    for card in sorted((CHECKOUT / "pipelines").glob("*/README.md")):
        sections.append(gallery_section(card.parent.name, card.read_text(encoding="utf-8")))
    return "\n\n".join(sections) + "\n"


def gallery_section(name: str, card: str) -> str:
    """The section of a model on the gallery page.

    Args:
        name: name of the pipeline.
        card: text of its card.

    Raises:
        LookupError: if the card has no figures or no limits.
    """
    text = re.sub(r"\A---\n.*?^---\n", "", card, flags=re.MULTILINE | re.DOTALL)
    paragraphs = text.split("\n\n")
    summary = next(each for each in paragraphs if each.strip()[:1] not in ("#", "!", ""))
    picture = re.search(r"!\[[^\]]*\]\([^)]+\)", text)
    parts = [summary, *([] if picture is None else [picture[0]])]
    parts += ["### Figures", first_figures(name, text), f"### {LIMITS}"]
    parts += [card_section(name, text, LIMITS), "[The card](README.md)"]
    place = f"../pipelines/{name}"

    def moved(match: re.Match[str]) -> str:
        return f"]({posixpath.normpath(posixpath.join(place, match[1]))}{match[2] or ''})"

    return LINK.sub(moved, "\n\n".join([f"## {name}", *parts]))


def first_figures(name: str, text: str) -> str:
    """The first table of a card's figures, with the paragraph before it, which explains it."""
    paragraphs = card_section(name, text, FIGURES).split("\n\n")
    tables = [place for place, each in enumerate(paragraphs) if each.startswith("|")]
    if not tables:
        raise LookupError(f"the card of {name} has no table below {FIGURES!r}; add one.")
    return "\n\n".join(paragraphs[max(0, tables[0] - 1) : tables[0] + 1])


def card_section(name: str, text: str, heading: str) -> str:
    """The text of the section of a card that has this heading."""
    _, *rest = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    section = dict(zip(rest[::2], rest[1::2], strict=True)).get(heading, "").strip()
    if not section:
        raise LookupError(f"the card of {name} has no section {heading}; add one.")
    return section


def python_page() -> str:
    """The public names of the package."""
    names = "\n\n".join(f"::: {cascade._HOMES[name]}.{name}" for name in sorted(cascade.__all__))
    return f"# Classes and functions\n\nThese can be imported from `cascade`.\n\n{names}\n"


def keys_page() -> str:
    """All keys of recipes, as `cascade keys` prints them."""
    sections = [
        "# Keys of recipes\n\nEvery key, from the classes that read it; [Recipes](../recipes.md) "
        "explains how they work together."
    ]
    places = set()
    for group in find_key_groups():
        title = f"{group.place}, `{group.choice}`" if group.choice else group.place
        anchor = f" {{ #{group.place} }}" if group.place not in places else ""
        places.add(group.place)
        rows = ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
        for key in group.keys:
            cells = (f"`{key.name}`", key.values, key.default, key.meaning)
            rows.append(f"| {' | '.join(escaped(cell(each)) for each in cells)} |")
        sections.append(f"## {title}{anchor}\n\n{escaped(group.about)}\n\n" + "\n".join(rows))
    return "\n\n".join(sections) + "\n"


def commands_page() -> str:
    """All commands with their arguments and options, from the command line itself."""
    group = typer.main.get_command(app)
    sections = list(command_sections(group, "cascade"))
    return "# Commands\n\n" + "\n\n".join(sections) + "\n"


def command_sections(command: Any, name: str) -> Iterator[str]:
    """A section for a command, and for each of those below it."""
    context = command.make_context(name, [], resilient_parsing=True)
    if not hasattr(command, "list_commands"):
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"## {name}\n\n```text\n{name} {usage}\n```\n\n{help_text(command.help)}"
        rows = [parameter_row(each, context) for each in command.params if not each.hidden]
        if rows:
            yield "\n".join(["| Argument or option | Meaning |", "|---|---|", *rows])
        return
    for child in command.list_commands(context):
        below = command.get_command(context, child)
        if below is not None and not below.hidden:
            yield from command_sections(below, f"{name} {child}")


def help_text(text: str) -> str:
    """A command's help, with its examples as code."""
    words, _, examples = re.split(r"(Examples?:)\s+(?=cascade )", text + "\n", maxsplit=1)
    code = "\n".join(each.strip() for each in examples.splitlines() if each.strip())
    return f"{escaped(words)}\n\n```sh\n{code}\n```"


def parameter_row(parameter: Any, context: Any) -> str:
    """A row of a command's table."""
    record = parameter.get_help_record(context)
    names, text = record if record is not None else (parameter.human_readable_name, "")
    return f"| `{cell(names)}` | {escaped(cell(text))} |"


def cell(text: str) -> str:
    """A text that can stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def escaped(text: str | None) -> str:
    """A text whose brackets and stars, outside of code, Markdown leaves alone."""
    code_or_sign = re.compile(r"(`[^`]*`)|([\[\]*<>_])")
    return code_or_sign.sub(lambda match: match[1] or f"\\{match[2]}", text or "").strip()
