"""What a page must be: well-formed, self-contained, with ids of its own."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

VOID = {"meta", "br", "input", "link", "img", "path", "use", "rect", "circle", "line"}


class Page(HTMLParser):
    """Checks nesting, and collects ids, references and tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: set[str] = set()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.targets |= {match for _, value in attrs for match in re.findall(r"url\(#([^)]+)\)", value or "")}
        self.targets |= {(value or "")[1:] for name, value in attrs if name == "href"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def check_loads_nothing(text: str, page: Page) -> None:
    """No address, image, frame or script from elsewhere."""
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not {"img", "link", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "srcset", "onclick")]


def check_ids(page: Page) -> None:
    """Each id once, and each reference has its target."""
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    assert page.targets <= set(page.ids)


def check_drawings(text: str) -> None:
    """Charts take the page's colours and fonts, and say in words what they show."""
    for drawing in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        assert 'role="img"' in drawing and 'aria-label="' in drawing
        assert "currentColor" in drawing and "var(--run-" in drawing and "<style" not in drawing
        assert not re.search(r"#[0-9a-f]{6}\b", drawing), "no colour of its own"
        assert "DejaVu" not in drawing and "system-ui" in drawing
        assert "<text" in drawing, "text is text"
