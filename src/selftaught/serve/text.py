"""From tokens to text as they come: no half character, and nothing that may turn out to be a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer shows of a character whose last bytes are still to come


class Text:
    """A completion's text so far.

    Args:
        tokenizer: of the model.
        stops: strings that end it; none of them is ever shown.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._ids: list[int] = []
        self._begin = self._told = 0  # tokens before `_told` are in `_text`; decoding begins at `_begin`, for context
        self._text = ""
        self._num_shown = 0
        self.stopped = False  # a stop string was met

    def add(self, ids: Sequence[int]) -> str:
        """Takes tokens in; what is certain by now, and was not shown before."""
        if self.stopped:
            return ""
        self._ids += ids
        known = self._decoded(self._begin, self._told)
        longer = self._decoded(self._begin, len(self._ids))
        if len(longer) > len(known) and not longer.endswith(UNFINISHED):
            self._text += longer[len(known) :]
            self._begin, self._told = self._told, len(self._ids)
        return self._shown(held=self._held())

    def end(self) -> str:
        """What was held back, when nothing more comes."""
        if not self.stopped:
            known, longer = self._decoded(self._begin, self._told), self._decoded(self._begin, len(self._ids))
            self._text += longer[len(known) :]
            self._told = self._begin = len(self._ids)
        return self._shown(held=0)

    def _decoded(self, begin: int, end: int) -> str:
        text: str = self._tokenizer.decode(
            self._ids[begin:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _shown(self, held: int) -> str:
        found = [place for stop in self._stops if (place := self._text.find(stop)) >= 0]
        if found:
            self._text, self.stopped, held = self._text[: min(found)], True, 0
        end = max(self._num_shown, len(self._text) - held)
        shown, self._num_shown = self._text[self._num_shown : end], end
        return shown

    def _held(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for count in range(min(longest, len(self._text)), 0, -1):
            if any(stop.startswith(self._text[-count:]) for stop in self._stops):
                return count
        return 0
