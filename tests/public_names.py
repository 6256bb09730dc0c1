"""The names that `optogram` exports, read from its table of contents; `make names` records them."""

import ast
import json
from pathlib import Path

CONTENTS = Path(__file__).parent.parent / "src" / "optogram" / "__init__.pyi"
RECORD = Path(__file__).with_name("public_names.json")


def exported() -> list[str]:
    """The names that `src/optogram/__init__.pyi` imports as themselves: `from .x import y as y`."""
    tree = ast.parse(CONTENTS.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    aliases = [alias for node in imports for alias in node.names]
    return sorted({alias.name for alias in aliases if alias.name == alias.asname})


def recorded() -> list[str]:
    """The names that were there when `make names` last ran."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


if __name__ == "__main__":
    RECORD.write_text(json.dumps(exported(), indent=2) + "\n", encoding="utf-8")
    print(f"{len(exported())} public names stand in {RECORD}.")
