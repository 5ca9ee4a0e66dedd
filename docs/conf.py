"""Sphinx: ``make docs`` builds the pages into docs/_build/html, with every warning an error."""

from __future__ import annotations

from typing import Any

from docutils import nodes

import quattro

project = "quattro"
author = "the quattro developers"
copyright = author
release = version = quattro.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
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

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings of the C name the types
napoleon_numpy_docstring = False

# Where the standard library's names are described: a build needs no network for an inventory, and a name that is in
# neither place is a warning.
ASYNCIO = {
    "task": "TaskGroup Task Task.cancel gather timeout timeout_at Timeout.reschedule eager_task_factory",
    "sync": "Semaphore Event",
    "runner": "run",
    "exceptions": "CancelledError TimeoutError",
    "eventloop": "loop.create_task loop.call_exception_handler loop.call_soon_threadsafe",
}
OTHERS = {
    "contextvars.Context": "contextvars",
    "contextlib.AsyncExitStack": "contextlib",
    "contextlib.aclosing": "contextlib",
    "functools.partial": "functools",
    "types.TracebackType": "types",
    "Awaitable": "typing",
    "Callable": "typing",
    "Coroutine": "typing",
    "ExceptionGroup": "exceptions",
}
ANCHORS = {"Awaitable": "typing.Awaitable", "Callable": "typing.Callable", "Coroutine": "typing.Coroutine"}
PAGES = OTHERS | {f"asyncio.{name}": f"asyncio-{page}" for page, names in ASYNCIO.items() for name in names.split()}


def standard_library(app: Any, env: Any, node: Any, contnode: Any) -> nodes.reference | None:
    """A link to docs.python.org for a name of the standard library."""
    target = node["reftarget"]
    if target not in PAGES:
        return None
    uri = f"https://docs.python.org/3/library/{PAGES[target]}.html#{ANCHORS.get(target, target)}"
    return nodes.reference("", "", contnode, internal=False, refuri=uri)


def setup(app: Any) -> None:
    """Register the above."""
    app.connect("missing-reference", standard_library)
