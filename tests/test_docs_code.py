"""The code in the documentation is about what there is: names, commands and options exist."""

import ast
import inspect
import re
import shlex
from pathlib import Path

import click
import pytest

import optogram as og
from optogram.cli import main
from optogram.core import techniques

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted(
    p for folder in ("methods", "studies") for p in (ROOT / "docs" / folder).glob("*.md")
)
BLOCK = re.compile(r"^```(\{made\}|[a-z]+)[^\n]*\n(.*?)^```", re.M | re.S)


def blocks(page: Path, *kinds: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for kind, code in found if kind.strip("{}") in kinds]


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def chain(node: ast.AST) -> list[str]:
    """`og.param.pixels` as ["og", "param", "pixels"]; empty for what is no chain of names."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_python_blocks_name_is_there(page):
    for code in blocks(page, "python", "made"):
        for node in ast.walk(ast.parse(code)):
            names = chain(node) if isinstance(node, ast.Attribute) else []
            if names[:1] != ["og"]:
                continue
            found = og
            for name in names[1:]:
                assert hasattr(found, name), f"{'.'.join(names)} is not there"
                found = getattr(found, name)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_options_that_python_blocks_give_to_techniques_exist(page):
    for code in blocks(page, "python", "made"):
        for node in ast.walk(ast.parse(code)):
            names = chain(node.func) if isinstance(node, ast.Call) else []
            if len(names) != 2 or names[0] != "og" or names[1] not in techniques():
                continue
            given = {keyword.arg for keyword in node.keywords} - {None}
            takes = set(inspect.signature(getattr(og, names[1])).parameters)
            assert given <= takes, f"og.{names[1]} has no option {sorted(given - takes)[0]}"


def typed(page: Path) -> list[list[str]]:
    """What is typed at `optogram` in a page's shell blocks, comments left out."""
    lines = [line for code in blocks(page, "sh") for line in code.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [w[1:] for w in words if w[:1] == ["optogram"] and "|" not in w and len(w) > 1]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_shell_blocks_type_is_a_command_with_such_options(page):
    for words in typed(page):
        command, context = main, click.Context(main)
        while isinstance(command, click.Group):
            _, command, words = command.resolve_command(context, words)
            context = click.Context(command)
        takes = {option for parameter in command.params for option in parameter.opts}
        takes |= {option for parameter in command.params for option in parameter.secondary_opts}
        given = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= takes | {"--help"}, f"{command.name} has no {sorted(given - takes)}"


def test_the_pages_have_code_to_read():
    assert sum(len(blocks(page, "python", "made")) for page in PAGES) > 20
    assert sum(len(typed(page)) for page in PAGES) > 10
