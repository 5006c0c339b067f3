"""Check the built pages: links lead somewhere, nothing is loaded from a network, search has words.

python docs/check_pages.py outputs/docs
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {
    ("script", "src"), ("img", "src"), ("iframe", "src"), ("link", "href"), ("source", "src"),
    ("video", "src"), ("object", "data"), ("embed", "src"),
}  # fmt: skip
"""Attributes whose address a browser fetches by itself."""
STYLE_ADDRESS = re.compile(r"""(?:@import\s+|url\()\s*["']?(https?:[^"')\s]+)""")


class Page(HTMLParser):
    """Addresses and anchors of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given.get("id") or "", given.get("name") or ""}
        for name, value in given.items():
            if value and (tag, name) in LOADED and given.get("rel") not in ("canonical", "author"):
                self.loads.append(value)
            elif value and tag == "a" and name == "href":
                self.links.append(value)


def problems(root: Path) -> list[str]:
    """Say what is wrong with the pages below a folder."""
    pages = {
        path: Page(path.read_text(encoding="utf-8"))
        for path in root.rglob("*.html")
        if "_static" not in path.parts
    }
    found = []
    for path, page in pages.items():
        name = path.relative_to(root)
        for address in page.links + page.loads:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loads and parts.scheme != "data":
                    found.append(f"{name} loads {address}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{name} links to {address}, which is not there")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{name} links to {address}, which has no such place")
    for style in root.rglob("*.css"):
        for address in STYLE_ADDRESS.findall(style.read_text(encoding="utf-8")):
            found.append(f"{style.relative_to(root)} loads {address}")
    index = root / "searchindex.js"
    if not index.is_file() or "entropi" not in index.read_text(encoding="utf-8"):
        found.append("searchindex.js does not know the word entropy")
    return sorted(set(found))


if __name__ == "__main__":
    sys.exit("\n".join(problems(Path(sys.argv[1]).resolve())) or 0)
