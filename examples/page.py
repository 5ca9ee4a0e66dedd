"""A page of the web, read as it comes and in bounds: its links, and the parts of it that links can point to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress

from aiohttp import ClientResponse
from lxml.etree import HTMLParser, LxmlError
from yarl import URL

MAX_SIZE = 4_000_000  # bytes that are read of a page
MAX_LINK = 8_000  # characters of a link: servers refuse more

# An address of another kind, "data:image/png;base64,..." for instance, which may be as long as it likes.
OTHER_SCHEME = re.compile(r"\s*(?!https?:)[a-z][a-z0-9+.-]*:", re.IGNORECASE)

# A picture, and what it is for: "small.png 480w, large.png 2x".
SRCSET = re.compile(r"([^\s,]\S*)(?:(?<=,)|[^,]*)")


class Page:
    """What the parser finds on a page."""

    def __init__(self, url: URL) -> None:
        self.url = self.base = url
        self.whole = True
        self.links: dict[URL, None] = {}
        self.malformed: dict[str, str] = {}  # what should be a link, and why it is none
        self.ids: set[str] = set()

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Note a tag's id and the addresses that it refers to, unless they are mere hints at a host."""
        values = {name: value for name, value in attributes.items() if value}
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a" and "name" in values:
            self.ids.add(values["name"])
        if values.get("rel") in ("preconnect", "dns-prefetch"):
            return
        hrefs = [values[name] for name in ("href", "src", "poster") if name in values]
        hrefs += [href.rstrip(",") for href in SRCSET.findall(values.get("srcset", ""))]
        for href in hrefs:
            if OTHER_SCHEME.match(href):
                continue
            if len(href) > MAX_LINK:
                self.malformed[f"{href[:60]}..."] = f"too long: {len(href):,} characters"
                continue
            try:
                url = self.base.join(URL(href.strip()))
                if tag == "base":
                    self.base = url
                elif url.scheme in ("http", "https"):
                    url.origin()  # which it must have
                    self.links[url] = None
            except ValueError as error:
                self.malformed[href] = f"not a URL: {error}"

    def close(self) -> None:
        """Do nothing: the parser calls this at the end."""


async def read_page(response: ClientResponse) -> Page | None:
    """Read a page, if it is one, up to a maximal size, and parse it in a thread, where it does not block the loop."""
    if response.content_type not in ("text/html", "application/xhtml+xml"):
        return None
    page, size = Page(response.url), 0
    try:
        parser = HTMLParser(target=page, encoding=response.charset)
    except (LookupError, ValueError):  # there is no such encoding
        parser = HTMLParser(target=page)
    async for chunk in response.content.iter_chunked(65536):
        size += len(chunk)
        if size > MAX_SIZE:
            page.whole = False
            return page
        await asyncio.to_thread(parser.feed, chunk)
    with suppress(LxmlError):  # the page is empty
        parser.close()
    return page
