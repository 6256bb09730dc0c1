"""Plain text into reStructuredText: code between backticks stays code, the rest stays words."""

import re

import docutils.core
import docutils.nodes

CODE = re.compile(r"((?<![\w:`])`[^`]+`(?!`))")


def readable(lines: list[str], env: object = None) -> list[str]:
    """The docstring as reStructuredText; as it stands, in a fixed width, where that cannot be."""
    text = "\n".join(lines)
    for attempt in (with_code(text), with_code(text, escape=True)):
        if is_clean(attempt, env):
            return attempt.splitlines()
    return ["::", "", *(f"   {line}".rstrip() for line in lines), ""]


def with_code(text: str, escape: bool = False) -> str:
    parts = CODE.split(text)
    words = [re.sub(r"(?<!\\)([*|]|_(?!\w))", r"\\\1", part) if escape else part for part in parts]
    return "".join(code(part) if CODE.fullmatch(part) else words[i] for i, part in enumerate(parts))


def code(part: str) -> str:
    return f"``{' '.join(part.strip('`').split())}``"


def is_clean(text: str, env: object) -> bool:
    """Whether docutils, with what Sphinx taught it, reads the text without a complaint."""
    settings = {"report_level": 5, "halt_level": 5, "env": env}
    tree = docutils.core.publish_doctree(text, settings_overrides=settings)
    return not (
        tree.parse_messages
        or tree.transform_messages
        or list(tree.findall(docutils.nodes.system_message))
    )
