"""HTML built from functions: whatever is no `Html` already is text, and escaped."""

from __future__ import annotations

import html
from typing import Any

VOID = {"br", "hr", "img", "meta"}
SHAPES = {"line", "rect", "circle", "polyline"}  # of SVG: empty, and closed at once


class Html(str):
    """Text that is markup."""


Content = Any  # Html, text, number, None, or a list of these


def text(content: Content) -> str:
    """Content as markup: lists joined, None left out, anything that is no Html escaped."""
    if content is None:
        return ""
    if isinstance(content, Html):
        return content
    if isinstance(content, (list, tuple)):
        return "".join(text(part) for part in content)
    # Control characters are no part of HTML, escaped or not.
    plain = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in str(content))
    return html.escape(plain)


def tag(element: str, /, *content: Content, **attributes: Any) -> Html:
    """<element attribute="…">content</element>; `class_` is class, `_` is `-`, None leaves one out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if element in VOID or element in SHAPES:
        return Html(f"<{element}{written}{'/' if element in SHAPES else ''}>")
    return Html(f"<{element}{written}>{text(list(content))}</{element}>")


def table(heads: list[Content], rows: list[list[Content]], caption: str) -> Html:
    """A table whose first column names its rows."""
    head = tag("tr", [tag("th", cell, scope="col") for cell in heads])
    body = [tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]]) for row in rows]
    inner = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", body))
    # A wide table scrolls by itself, and with the keyboard.
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def definitions(pairs: list[tuple[Content, Content]]) -> Html:
    """Names and what stands for them."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs])
