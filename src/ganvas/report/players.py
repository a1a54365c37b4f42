"""What can be heard, played or read in a page: the HTML that modalities write, as far as it is harmless."""

from __future__ import annotations

from html import escape
from html.parser import HTMLParser
from pathlib import Path

from ganvas.report.markup import Html, tag

MOST_BYTES = 1_500_000
"""Of the players of one sheet: a page has several, and is to be sent by mail."""

_ELEMENTS = frozenset({
    "audio", "video", "source", "img", "pre", "code", "p", "div", "span", "figure", "figcaption", "table", "tr", "td",
    "th", "br",
})  # fmt: skip
_VOID = frozenset({"source", "img", "br"})
_ATTRIBUTES = frozenset({
    "controls", "preload", "loop", "muted", "src", "type", "width", "height", "alt", "title", "class", "lang", "dir",
})  # fmt: skip


def players(file: Path | None) -> Html | None:
    """The players in a file; None where there is none that can be read.

    A run's folder may come from somebody else, and a page is opened without a thought. So plain elements are written
    anew, and sources that lie outside of the page are left out: nothing in it can run or be fetched.
    """
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if len(text) > MOST_BYTES:
        return tag("p", f"The players are too large for this page; they are in {file.parent.name}/{file.name}.")
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return tag("div", Html("".join(reader.pieces)), class_="players")


class _Reader(HTMLParser):
    """Writes what it reads anew, without elements and attributes that are not among the plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _ELEMENTS:
            return
        safe = [
            name if value is None else f'{name}="{escape(value)}"'
            for name, value in attrs
            if name in _ATTRIBUTES and (name != "src" or (value or "").startswith("data:"))
        ]
        self.pieces.append(f"<{' '.join([tag, *safe])}>")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while tag in self.open:
            last = self.open.pop()
            self.pieces.append(f"</{last}>")
            if last == tag:
                return

    def handle_data(self, data: str) -> None:
        self.pieces.append(escape(data, quote=False))

    def close(self) -> None:
        super().close()
        self.pieces.extend(f"</{tag}>" for tag in reversed(self.open))
