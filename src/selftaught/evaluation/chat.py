"""One question to a language model behind an OpenAI-compatible server; a server that is busy is asked again."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from http.client import HTTPException

from selftaught.errors import ConfigError

TRIES, SECONDS = 4, 120  # the waits between tries double from one second
BUSY = (408, 409, 429, 500, 502, 503, 504, 529)


def chat_reply(url: str, model: str, key: str | None, prompt: str, hint: str) -> str:
    """What a model replies to a prompt.

    Args:
        url: the server's, ending in /v1.
        model: its name there.
        key: sent as it is asked; None sends none.
        prompt: the user's only turn.
        hint: how to mend it if there is no answer, for the error.

    Raises:
        ConfigError: there is no answer, also after a while.
    """
    url = f"{url.rstrip('/')}/chat/completions"
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(body).encode("utf-8"), headers)
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as reply:
                return str(json.load(reply)["choices"][0]["message"]["content"])
        except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
            if not _may_pass(error) or attempt == TRIES - 1:
                reason = " ".join(str(error).split())[:200]
                raise ConfigError(f"{url}: the judge gives no answer ({reason}); {hint}") from error
            time.sleep(2.0**attempt)
    raise AssertionError("the last try returns or raises")


def _may_pass(error: Exception) -> bool:
    """Whether asking again may help: the network failed, or the server was busy."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return error.code in BUSY
    return isinstance(error, (OSError, HTTPException))
