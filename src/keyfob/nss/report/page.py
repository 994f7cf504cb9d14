"""A self-contained HTML page: its style and script inside, nothing fetched, readable without the script."""

from __future__ import annotations

import html
from pathlib import Path

HERE = Path(__file__).resolve().parent


def escape(text: str) -> str:
    """Text for HTML, in quotes too. Names come from any module: what is not printable becomes U+FFFD."""
    return html.escape("".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text))


def page(title: str, body: str, *, made_by: str) -> str:
    """The whole document. `body` is HTML; `title` and `made_by` are text."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en" class="no-script">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
        f'<meta name="generator" content="{escape(made_by)}">\n<title>{escape(title)}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f"<footer>{escape(made_by)}</footer>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def paragraph(text: str, css: str = "") -> str:
    """A paragraph of text; nothing for no text."""
    kind = f' class="{css}"' if css else ""
    return f"<p{kind}>{escape(text)}</p>" if text else ""


def facts(pairs: list[tuple[str, str]]) -> str:
    """A list of names and values; those without a value are left out."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs if value)
    return f'<dl class="facts">{items}</dl>'
