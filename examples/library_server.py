"""A web server of pydoc's pages of the standard library, each written when it is asked for.

It prints its port, answers a little late, as a server far away does, and ends when its input ends. It is started by
library_site.py, with ``python -I -S`` so that only the standard library can be imported.
"""

from __future__ import annotations

import pydoc
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from socketserver import ThreadingTCPServer

DISTANCE = 0.05  # seconds to a server on another continent and back

# Modules that open a window or print, and those that are not on every machine.
NOT_IMPORTED = {"antigravity", "idlelib", "lib2to3", "test", "tests", "this", "tkinter", "turtle", "turtledemo"}

LOCK = threading.Lock()  # pydoc knows nothing of threads


def index() -> str:
    """Write the first page: a link to every module that there is."""
    names = sorted(name for name in sys.stdlib_module_names - NOT_IMPORTED if find_spec(name))
    return "".join(f"<p><a href='{name}.html'>{name}</a>\n" for name in names)


def page(name: str) -> str | None:
    """Write a module's page, if it can be imported. What else pydoc links to is what the site has broken."""
    if {"__main__", *NOT_IMPORTED} & set(name.split(".")):
        return None
    try:
        with LOCK:
            module, name = pydoc.resolve(name)  # type: ignore[misc]
            return pydoc.html.page(pydoc.describe(module), pydoc.html.document(module, name))
    except Exception:
        return None


class Handler(BaseHTTPRequestHandler):
    """What is done for a connection, in a thread of its own."""

    protocol_version = "HTTP/1.1"  # a connection is for many requests
    wbufsize = -1  # an answer is sent in one piece

    def do_GET(self) -> None:
        """Answer with a page, or with 404."""
        time.sleep(DISTANCE)
        text = index() if self.path == "/" else page(self.path.strip("/").removesuffix(".html"))
        body = (text or "there is no such page").encode()
        self.send_response(404 if text is None else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingTCPServer):
    """Takes as many connections at a time as come."""

    daemon_threads = True
    request_queue_size = 100


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process
    pydoc.inspect.getcomments = lambda thing: None  # type: ignore[attr-defined]  # it takes half of the time
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdout = sys.stderr  # for modules that print
    sys.stdin.read()
