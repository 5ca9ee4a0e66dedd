"""Sphinx: ``make docs`` builds the pages into docs/_build/html, with every warning an error."""

from __future__ import annotations

import quattro

project = "quattro"
author = "the quattro developers"
copyright = author
release = version = quattro.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
default_role = "any"
nitpicky = True

html_theme = "furo"
html_title = f"quattro {release}"
html_static_path = ["_static"]
html_css_files = ["quattro.css"]
html_show_copyright = False
copybutton_selector = "div:not(.highlight-output) > div.highlight > pre"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings of the C name the types
napoleon_numpy_docstring = False

# The standard library's names, from an inventory that lies here, so that a build needs no network: tools/inventory.py
# writes it. A name that is not in it is a warning, and so an error.
intersphinx_mapping = {"python": ("https://docs.python.org/3", "python.inv")}
