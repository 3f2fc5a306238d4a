"""The commands and snippets on the pages: what they name exists."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from safetensors.torch import load_file

import cascade
from cascade.cli.main import app
from cascade.recipe.finding import list_recipes, recipe_name

CHECKOUT = Path(__file__).parents[1]
PAGES = [
    CHECKOUT / "README.md",
    CHECKOUT / "CONTRIBUTING.md",
    *(CHECKOUT / "docs").rglob("*.md"),
    *(CHECKOUT / "pipelines").rglob("*.md"),
    CHECKOUT / "benchmarks" / "README.md",
]
COMMAND: Any = typer.main.get_command(app)
CASCADE = re.compile(r"(?:^|&& )((?:cascade) .*?)(?= && |$)", flags=re.MULTILINE)
NAMED = re.compile(  # what looks like the name of a bundled recipe
    r"(?<![\w/.-])((?:emoji|photo|tiny|base|upsample)-[a-z0-9-]*\d[a-z0-9-]*)(?![\w/.*=-])"
)

QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|(?:^| )#.*")  # and comments
PATTERN = re.compile(r"[\[?]|=\S*\*")  # zsh refuses such words unless they match a file


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page that are in these languages."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^ *```(\w+)\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language in languages]


def commands(page: Path) -> Iterator[str]:
    """The `cascade` commands in the blocks of a page."""
    code = "\n".join(blocks(page, "sh", "console")).replace("\\\n", " ")
    yield from CASCADE.findall(
        "\n".join(line.strip().removeprefix("$ ") for line in code.splitlines())
    )


def mentions(page: Path) -> Iterator[str]:
    """The `cascade` commands in the text and the tables of a page, which may lack arguments."""
    text = page.read_text(encoding="utf-8")
    yield from (each for each in re.findall(r"`(cascade [^`\n]+)`", text) if "…" not in each)


def fault(line: str) -> str | None:
    """What the command line finds wrong with a command, without running it; None for nothing."""
    line = re.split(r" [|>] ", line)[0]  # what the shell does with the output
    words = shlex.split(line, comments=True)[1:]
    command = COMMAND
    context = command.make_context("cascade", [], resilient_parsing=True)
    while hasattr(command, "list_commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        command = command.get_command(context, name)
        if command is None:
            return f"no command {name!r}"
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
    if hasattr(command, "list_commands"):
        return None
    try:
        command.make_context(command.name, words, parent=context.parent)
    except typer.Exit:  # of --help
        return None
    except Exception as error:
        return type(error).__name__
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_the_commands_of_a_page_are_understood(page):
    for line in commands(page):
        assert fault(line) is None, line
    for line in mentions(page):
        assert fault(line) in (None, "MissingParameter", "BadOptionUsage"), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_patterns_for_cascade_are_quoted(page):
    code = "\n".join(blocks(page, "sh", "console")).replace("\\\n", " ")
    for line in (*code.splitlines(), *mentions(page)):
        assert not PATTERN.search(QUOTED.sub("", line)), line


def test_the_commands_of_the_pages_name_recipes_that_exist():
    known = {recipe_name(path) for kind in ("stages", "pipelines") for path in list_recipes(kind)}
    for page in PAGES:
        for line in (*commands(page), *mentions(page)):
            for name in NAMED.findall(line):
                assert name in known, f"{page.name}: {line}"


def test_no_settings_are_chosen_on_the_images_of_the_figures():
    help_text = (CHECKOUT / "cascade" / "cli" / "sweep.py").read_text(encoding="utf-8")
    lines = re.findall(r"^ *(cascade sweep .*)$", help_text, flags=re.MULTILINE)
    for page in PAGES:
        lines += [*commands(page), *mentions(page)]
    choosing = [line for line in lines if "cascade sweep" in line or "--apply" in line]
    with_data = [line for line in choosing if "--data" in line]
    assert len(with_data) > 8
    assert not [line for line in with_data if re.search(r"--data \S*(heldout|test)", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_the_snippets_of_a_page_import_what_exists(page):
    for code in blocks(page, "python", "py"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module == "cascade":
                assert {each.name for each in node.names} <= {*cascade.__all__, "evaluate"}


def test_prompts_of_the_bundled_cascade_need_no_text_encoder():
    file = CHECKOUT / "pipelines" / "emoji-1024" / "stages" / "base" / "known_texts.safetensors"
    known = bytes(load_file(file)["texts"].tolist()).decode().split("\n")
    sources = [*PAGES, *(CHECKOUT / "cascade" / "cli").glob("*.py")]
    texts = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    prompts = re.findall(r'cascade generate emoji-1024 "([^"]+)"', texts)
    assert len(prompts) > 3
    assert set(prompts) <= set(known)
