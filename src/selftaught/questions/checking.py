"""Whether a question is worth teaching. Each check gives a reason, or nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from selftaught.data.documents import Piece
from selftaught.words import (
    GENERIC,
    added,
    best_sentence,
    content_words,
    folded,
    names,
    stem,
    words,
)

NOT_A_QUESTION = "is not a question"
VAGUE = "does not say what it is about"
AGAIN = "was asked before"
NO_ANSWER = "has an answer that adds nothing"
NOT_IN_TEXT = "has an answer that does not stand in the text"
UNSURE = "is answered otherwise when it is asked again"
KNOWN = "is answered so without the document"
ENOUGH = "asks for what enough others ask"
IN_ONE_SENTENCE = 0.6  # share of what an answer adds
RARE = 0.1  # share of the documents: what stands in more of them names none


def spread(pieces: Iterable[Piece]) -> tuple[Mapping[str, int], int]:
    """In how many documents each word stands, and how many there are."""
    found: dict[str, set[str]] = {}
    for piece in pieces:
        found.setdefault(piece.document, set()).update(content_words(f"{piece.title}\n{piece.text}"))
    return Counter(word for held in found.values() for word in held), len(found)


def subject_words(piece: Piece, counts: Mapping[str, int], num_documents: int) -> set[str]:
    """Words of which a question must hold one, to say what it is about.

    Those of the title that few other documents hold; or, where the text has none of them, its rare names.
    """
    most = max(1, RARE * num_documents)
    text = set(words(piece.text))
    rare = {word for word in content_words(piece.title) & text if counts.get(word, 0) <= most and word not in GENERIC}
    return rare or {name for name in names(piece.text) if counts.get(name, 0) <= most and not name.isdecimal()}


def subject(piece: Piece, wanted: set[str]) -> str:
    """What a piece is about: its title, or, where its text has no word of that, the rare name that it says most."""
    if set(words(piece.title)) & wanted:
        return piece.title
    said = re.findall(r"\w+", piece.text)
    named = Counter(word for word in said if word[0].isupper() and folded(word) in wanted)
    return named.most_common(1)[0][0] if named else piece.title


def question_problem(question: str, wanted: set[str], seen: set[str]) -> str | None:
    """Why a question cannot be asked; `seen` are the folded ones that came before."""
    if not question.endswith("?") or len(words(question)) < 4:
        return NOT_A_QUESTION
    if wanted and not wanted & set(words(question)):
        return VAGUE
    if " ".join(words(question)) in seen:
        return AGAIN
    return None


def answer_problem(question: str, answers: Sequence[str], from_memory: str, piece: Piece) -> tuple[str | None, str]:
    """Why an answer cannot be taught, and the sentence that it stands in.

    Args:
        question: what was asked.
        answers: with the document in view, the likeliest first.
        from_memory: without it.
        piece: the document's.
    """
    new = added(answers[0], question)
    if not new:
        return NO_ANSWER, ""
    quote, share = best_sentence(piece.text, new)
    there = {stem(word) for word in words(piece.text)}
    claims = names(f"x {answers[0]}") & new  # its names and numbers; a first word counts too
    if share < IN_ONE_SENTENCE or not {stem(claim) for claim in claims} <= there:
        return NOT_IN_TEXT, ""
    for other in answers[1:]:
        if not _same(new, added(other, question)):
            return UNSURE, quote
    if new <= content_words(from_memory):
        return KNOWN, quote
    return None, quote


def _same(left: set[str], right: set[str]) -> bool:
    """Whether two answers add the same numbers and mostly the same words."""
    a, b = {stem(word) for word in left}, {stem(word) for word in right}
    numbers = {word for word in a if word.isdecimal()} == {word for word in b if word.isdecimal()}
    return numbers and 2 * len(a & b) >= max(1, min(len(a), len(b)))
