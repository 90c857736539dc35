"""Addresses of models behind OpenAI-compatible servers: "http://host/v1#MODEL"."""

from __future__ import annotations

import os

from selftaught.errors import ConfigError

KEY_VARIABLES = ("SELFTAUGHT_API_KEY", "OPENAI_API_KEY")
SCHEMES = ("http://", "https://")


def is_address(text: str) -> bool:
    """Whether a text is an address rather than a model's name."""
    return text.startswith(SCHEMES)


def divided(text: str, option: str) -> tuple[str, str]:
    """The server's address, and the model's name there.

    Args:
        text: of the form "http://host/v1#MODEL".
        option: what it was given to, for the error.

    Raises:
        ConfigError: it is no address, or names no model.
    """
    address, _, model = text.partition("#")
    if not is_address(text):
        raise ConfigError(f"{option}: {text!r} is no address; write http://HOST/v1#MODEL")
    if not model:
        raise ConfigError(f"{option}: {text} names no model; write {text.rstrip('#')}#MODEL")
    return address, model


def api_key() -> str | None:
    """The key that servers are sent; None if the environment has none."""
    return next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)
