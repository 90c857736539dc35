"""What is taken out of texts before they are stored: addresses, telephone numbers, what a function of yours finds."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence

from selftaught.errors import ConfigError

Redaction = Callable[[str], str]

EMAIL = re.compile(r"[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}\w{2,24}")
# Seven to fifteen digits (E.164), with the signs that people put between them; no digit or letter beside it.
PHONE = re.compile(r"(?<![\w.])\+?\(?\d(?:[ ()/.-]{0,2}\d){6,14}(?!\w)")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def redactor(names: Sequence[str]) -> Redaction:
    """All named redactions, one after another.

    Args:
        names: "email", "phone", or "package.module:function" of your own, which takes a text and returns one.

    Raises:
        ConfigError: there is no such redaction or function.
    """
    functions = [_named(name) for name in names]

    def redact(text: str) -> str:
        for function in functions:
            text = function(text)
        return text

    return redact


def _email(text: str) -> str:
    return EMAIL.sub("[email]", text)


def _phone(text: str) -> str:
    """Dates look alike, and stay."""
    return PHONE.sub(lambda found: found[0] if DATE.fullmatch(found[0]) else "[phone]", text)


BUILT_IN: dict[str, Redaction] = {"email": _email, "phone": _phone}


def _named(name: str) -> Redaction:
    if name in BUILT_IN:
        return BUILT_IN[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise ConfigError(
            f"interactions.redact: unknown {name!r}; use {', '.join(BUILT_IN)} or package.module:function"
        )
    try:
        found: Redaction = getattr(importlib.import_module(module), function)
        if found("") != "":
            raise TypeError("it does not leave an empty text as it is")
    except Exception as error:  # a module, or a function, may raise anything
        raise ConfigError(f"interactions.redact: {name} cannot be used ({error!r}); check PYTHONPATH") from error
    return found
