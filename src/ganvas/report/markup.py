"""HTML and SVG from nested calls. Plain text is escaped by construction: only what `tag` made is taken as markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_VOID = frozenset({"meta", "img", "br", "path", "line", "circle", "rect"})  # elements without an end tag


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: str | float | None) -> Html:
    """An element. None among children and attributes is left out; `class_` means class, `aria_label` aria-label."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}/>" if name not in ("meta", "img", "br") else f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[str | None]) -> Html:
    """Pieces one after the other, escaped where they are plain text."""
    return Html(
        "".join(child if isinstance(child, Html) else escape(child, quote=False) for child in children if child)
    )


def table(head: Iterable[str], rows: Iterable[Iterable[str]], *, caption: str | None = None, class_: str = "") -> Html:
    """A table whose columns have headers, and whose rows are headed by their first cell."""
    body = []
    for first, *cells in rows:
        body.append(tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in cells)))
    heads = [tag("th", cell, scope="col") for cell in head]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption) if caption else None,
            tag("thead", tag("tr", *heads)) if heads else None,
            tag("tbody", *body),
            class_=class_ or None,
        ),
        class_="scroll",
    )
