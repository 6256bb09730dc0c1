"""How the documentation is built: offline, warnings as errors, no page loads from outside."""

import logging
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src" / "optogram"
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(SOURCE.parent))

from docstrings import readable  # noqa: E402

project = "optogram"
author = "the optogram authors"
copyright = "2026, the optogram authors"
release = re.search('"(.+)"', (SOURCE / "version.py").read_text(encoding="utf-8").split("=")[1])[1]

extensions = [
    "made",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = [
    "_build",
    "measured.md",
    "sg_execution_times.rst",
    "examples/sg_execution_times.rst",
]
# In a docstring `mean` is a word, and two classes may well have an attribute of that name.
suppress_warnings = ["ref.python"]

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "examples",
    "filename_pattern": ".*",
    "within_subsection_order": "ExampleTitleSortKey",
    "image_scrapers": ["made"],
    "ignore_repr_types": "optogram",
    "capture_repr": (),
    "abort_on_example_error": True,
    "only_warn_on_example_error": False,
    "remove_config_comments": True,
    "reset_modules": (),
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "download_all_examples": False,
}

html_theme = "furo"
html_title = f"optogram {release}"
html_copy_source = False
html_show_sphinx = False

myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
napoleon_use_ivar = True

# What the library says of its ways at level INFO is for whoever asks, not for the pages.
logging.getLogger("optogram").setLevel(logging.WARNING)

ROOMS = {
    "pictures": "What every technique hands back",
    "core": "How one speaks of a network",
    "ascent": "Moving an image uphill",
    "survey": "What a data set excites",
    "techniques": "One file an idea of the literature",
    "zoo": "Networks and data to practise on",
    "atlas": "Every unit of a network, into a folder",
    "studies": "Whole experiments, each with a report",
    "cli": "The door in the shell",
    "web": "The door in the browser",
}


def write_reference(app: Any) -> None:
    """A page for each room that is there, with its modules in the order of their names."""
    pages = HERE / "api"
    pages.mkdir(exist_ok=True)
    for room, title in ROOMS.items():
        page, modules = pages / f"{room}.md", sorted((SOURCE / room).rglob("*.py"))
        if modules:
            text = f"# {room}: {title[0].lower()}{title[1:]}\n\n" + "\n".join(map(section, modules))
            if not page.exists() or page.read_text(encoding="utf-8") != text:
                page.write_text(text, encoding="utf-8")
        else:
            page.unlink(missing_ok=True)


def section(path: Path) -> str:
    """A module under its own heading; of a room's table of contents only the opening sentence."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    if parts[-1] == "__init__" and len(parts) == 3:
        return f"```{{eval-rst}}\n.. automodule:: {'.'.join(parts[:-1])}\n   :no-members:\n```\n"
    name = ".".join(part for part in parts if part != "__init__")
    return f"## {parts[-1]}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n"


def spare(app: Any, what: str, name: str, obj: object, options: object, lines: list) -> None:
    """Keep a property's words from napoleon, to which all before a colon is a type."""
    if what in ("property", "attribute", "data"):
        SPARED[name] = list(lines)


def rewrite(app: Any, what: str, name: str, obj: object, options: object, lines: list) -> None:
    """Docstrings are plain text with code between single backticks."""
    lines[:] = readable(SPARED.pop(name, lines), app.env)


SPARED: dict[str, list[str]] = {}


def setup(app: Any) -> None:
    app.connect("builder-inited", write_reference)
    # Before and after napoleon, which reads the sections.
    app.connect("autodoc-process-docstring", spare, priority=400)
    app.connect("autodoc-process-docstring", rewrite, priority=900)
