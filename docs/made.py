"""Pages that make their own pictures: code that is run while the page is built, and what it gave.

    ```{made} What stands under the picture
    net = og.load("mnist-mlp")
    og.maximize(net, "output:7")
    ```

The blocks of a page run in one namespace, from top to bottom; the value of a block's last line is
shown below it, as a notebook would show it. A block that fails stops the build.
"""

import ast
import hashlib
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

PICTURES = "_made"


class Made(SphinxDirective):
    """A block of Python with the picture that it makes below it."""

    has_content = True
    optional_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {
        "hidden": directives.flag,
        "width": directives.length_or_percentage_or_unitless,
    }

    def run(self) -> list[nodes.Node]:
        names = self.env.temp_data.setdefault("optogram-made", {})
        made = result_of("\n".join(self.content), names, self.env.docname)
        found: list[nodes.Node] = []
        if "hidden" not in self.options:
            text = "\n".join(self.content)
            found.append(nodes.literal_block(text, text, language="python"))
        if made is not None:
            found.append(self.figure(picture_of(made)))
        return found

    def figure(self, png: bytes) -> nodes.figure:
        folder = Path(self.env.srcdir) / PICTURES
        folder.mkdir(exist_ok=True)
        path = folder / f"{hashlib.sha256(png).hexdigest()[:16]}.png"
        if not path.exists():
            path.write_bytes(png)
        caption = self.arguments[0] if self.arguments else ""
        image = nodes.image(uri=f"/{PICTURES}/{path.name}", alt=caption or "the result")
        if "width" in self.options:
            image["width"] = self.options["width"]
        image["classes"].append("made")
        figure = nodes.figure("", image)
        if caption:
            words = nodes.Element()
            self.state.nested_parse(StringList([caption], self.env.docname), 0, words)
            figure += nodes.caption(caption, "", *words.children[0].children)
        return figure


def result_of(code: str, names: dict[str, Any], page: str) -> Any:
    """Run a block in the page's namespace; the value of its last line where that is one."""
    tree = ast.parse(code, filename=page)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, page, "exec"), names)
    return eval(compile(ast.Expression(last.value), page, "eval"), names) if last else None


def picture_of(made: Any) -> bytes:
    if hasattr(made, "_repr_png_"):
        return made._repr_png_()
    raise TypeError(f"a block that is to be shown ends in a result, not in a {type(made).__name__}")


def shown_by_an_example(block: Any, names: dict[str, Any], settings: dict[str, Any]) -> str:
    """What sphinx-gallery shows below a block of an example: the result of its last line."""
    from sphinx_gallery.scrapers import figure_rst

    made, names["example_globals"]["___"] = names["example_globals"].get("___"), None
    if not hasattr(made, "_repr_png_"):
        return ""
    path = Path(next(names["image_path_iterator"]))
    path.write_bytes(picture_of(made))
    return figure_rst([str(path)], settings["src_dir"])


def _get_sg_image_scraper() -> Any:
    """How sphinx-gallery finds the scraper of a module that it is given by name."""
    return shown_by_an_example


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("made", Made)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
