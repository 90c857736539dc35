"""What a text says, as words: its names, its numbers, and what an answer adds to its question."""

from __future__ import annotations

import re
import unicodedata

# Without "yes", "no" and "not", which can be all that an answer says, and "may", which is also a month.
_STOP_WORDS = """a about after all also am an and any are as at be because been being but by can could d did do does
doing during each for from had has have having he her here him his how i if in into is it its just ll m me might more
most my of on only or other our out over own re s same she should so some such t than that the their them then there
these they this those through to too under until up ve very was we were what when where which while who whom whose why
will with would you your"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
LEAST, ROOT = 4, 3  # letters of a word that may have an ending, and of what is left of it
ENDINGS = ("ing", "ed", "es", "s", "e", "d")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=[\"'“‘(]*[A-Z0-9À-Ý])|\n+")
_GENERIC = """report article document text passage author page section paragraph question answer above following"""
GENERIC = frozenset(_GENERIC.split())


def folded(text: str) -> str:
    """Lower case, composed, with "5,400" as one number."""
    return whole_numbers(unicodedata.normalize("NFKC", text).casefold())


def whole_numbers(text: str) -> str:
    """The text with "5,400" as one number."""
    return re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", text)


def words(text: str) -> list[str]:
    """Its words, folded, in order."""
    return re.findall(r"\w+", folded(text))


def content_words(text: str) -> set[str]:
    """Its words but for those that every text has."""
    return {word for word in words(text) if word not in STOP_WORDS}


def stem(word: str) -> str:
    """A word without the commonest English endings, so that "occur" and "occurred" are one; a number as it is."""
    if word.isdecimal() or len(word) < LEAST:
        return word
    bare = next((word[: -len(end)] for end in ENDINGS if word.endswith(end) and len(word) - len(end) >= ROOT), word)
    return re.sub(r"([b-df-hj-np-tv-z])\1$", r"\1", bare)


def stems(text: str) -> set[str]:
    """The stems of all its words."""
    return {stem(word) for word in words(text)}


def added(answer: str, question: str) -> set[str]:
    """The content words of an answer that its question does not hold, other forms of its words included."""
    asked = stems(question)
    return {word for word in content_words(answer) if stem(word) not in asked}


def names(text: str) -> set[str]:
    """Folded words with a capital that no sentence begins with, and numbers: what a text is about, or claims."""
    found = set()
    for sentence in SENTENCE_END.split(text):
        for number, token in enumerate(re.findall(r"\w+", whole_numbers(sentence))):
            if token[0].isdecimal() or (token[0].isupper() and number > 0 and folded(token) not in STOP_WORDS):
                found.add(folded(token))
    return found


def claims(answer: str, question: str, document: str) -> set[str]:
    """The names and numbers that an answer adds to its question.

    Names are told by their capitals, in the answer or, as a small model forgets them, in the document.
    """
    new = added(answer, question)
    return (names(answer) | names(document)) & new | {word for word in new if word[0].isdecimal()}


def sentences(text: str) -> list[str]:
    """A text's sentences, without blank ones."""
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]


def best_sentence(text: str, wanted: set[str]) -> tuple[str, float]:
    """The sentence with most of some words, and the share of them that it has (forms of a word count)."""
    best, most = "", -1.0
    wanted = {stem(word) for word in wanted}
    for sentence in sentences(text):
        share = len(wanted & stems(sentence)) / max(1, len(wanted))
        if share > most:
            best, most = sentence, share
    return best, max(most, 0.0)
