"""The page as one document: its style and its script are written into it, and nothing else may be loaded or run."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

STYLE, SCRIPTS = (
    "page.css",
    ("dom.js", "charts.js", "versions.js", "measured.js", "beside.js", "feedback.js", "main.js"),
)


@cache
def document() -> tuple[str, dict[str, str]]:
    """The page's text, and the headers that it is sent with."""
    style = _part(STYLE)
    script = '"use strict";\n(() => {\n' + "\n".join(map(_part, SCRIPTS)) + "})();\n"
    text = _part("page.html").replace("/* style */", style, 1).replace("/* script */", script, 1)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hashed(style)}",
            f"script-src {_hashed(script)}",
            "connect-src 'self'",
            "img-src data:",  # the icon
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",  # no text becomes an element, whoever wrote it
            "trusted-types 'none'",
        )
    )
    return text, {
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _part(name: str) -> str:
    return files(__package__).joinpath("parts", name).read_text(encoding="utf-8")


def _hashed(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
