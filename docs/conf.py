"""Sphinx: ``make docs`` builds the pages into docs/_build/html, with every warning an error."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import quattro

project = "quattro"
author = "the quattro developers"
copyright = author
release = version = quattro.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
default_role = "code"
nitpicky = True

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"quattro {release}"
html_static_path = ["_static"]
html_css_files = ["quattro.css"]
html_show_copyright = False
html_use_index = False  # the reference is one page
copybutton_selector = "div:not(.highlight-output) > div.highlight > pre"
copybutton_exclude = ".gp, .go"  # the prompts of the reference's examples, and what they print

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures come from the stub, see below
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False

# The standard library's names, from an inventory that lies here, so that a build needs no network: tools/inventory.py
# writes it. A name that is not in it is a warning, and so an error.
intersphinx_mapping = {"python": ("https://docs.python.org/3", "python.inv")}

STUB = ast.parse((Path(quattro.__file__).parent / "__init__.pyi").read_text(encoding="utf-8"))
# Type variables, and what a docstring names without its module: the signature above it has the link.
VARIABLES = [ast.unparse(node.targets[0]) for node in STUB.body if isinstance(node, ast.Assign)]
UNLINKED = [name.removeprefix("_") for name in VARIABLES] + ["Callable", "Coroutine"]
nitpick_ignore = [("py:class", name) for name in UNLINKED]

MODULES = {alias.name: node.module for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}


class Qualified(ast.NodeTransformer):
    """Names of types as other pages know them."""

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """``Context`` is ``contextvars.Context``; a type variable loses its underscore."""
        module = MODULES.get(node.id)
        return ast.Name(f"{module}.{node.id}" if module else node.id.removeprefix("_"))


def signatures() -> dict[str, tuple[str, str | None]]:
    """Parameters and result of each class and method, out of the stub; of overloads, those of the first."""
    found: dict[str, tuple[str, str | None]] = {}
    for owner in Qualified().visit(STUB).body:
        for node in owner.body if isinstance(owner, ast.ClassDef) else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns:
                if "property" in map(ast.unparse, node.decorator_list):
                    continue
                del (node.args.posonlyargs or node.args.args)[0]
                shown = f"({ast.unparse(node.args)})"
                if node.name == "__init__":
                    found[owner.name] = shown, None
                else:
                    found.setdefault(f"{owner.name}.{node.name}", (shown, ast.unparse(node.returns)))
    return found


SIGNATURES = signatures()


def typed(_app: Any, _what: str, name: str, *_: Any) -> tuple[str, str | None] | None:
    """The signature in the stub; the C's own has no types."""
    return SIGNATURES.get(name.removeprefix("quattro."))


def setup(app: Any) -> None:
    """Register the above."""
    app.connect("autodoc-process-signature", typed)
