"""Whether a question is worth teaching. Each check gives a reason, or nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from selftaught.data.documents import Piece
from selftaught.questions.writing import Needs
from selftaught.words import (
    GENERIC,
    added,
    best_sentence,
    claims,
    content_words,
    folded,
    names,
    stem,
    stems,
    words,
)

NOT_A_QUESTION = "is not a question"
OF_THE_TEXT = "asks about the text, not about what it tells"
VAGUE = "does not say what it is about"
PRESUMES = "presumes what does not stand in the text"
AGAIN = "was asked before"
NO_ANSWER = "has an answer that adds nothing"
NOT_IN_TEXT = "has an answer that does not stand in the text"
UNSURE = "is answered otherwise when it is asked again"
KNOWN = "is answered so without the document"
ENOUGH = "asks for what enough others ask"
FEW = 2  # words that an answer without names and numbers must add
IN_ONE_SENTENCE = 0.6  # share of what an answer adds
IN_THE_TEXT = 0.5  # share of a question's words
RARE = 0.1  # share of the documents: what stands in more of them names none


def spread(pieces: Iterable[Piece]) -> tuple[Mapping[str, int], int]:
    """In how many documents each word stands, and how many there are; the pieces of each document come together."""
    counts: Counter[str] = Counter()
    num_documents = 0
    for _, own in groupby(pieces, key=lambda piece: piece.document):
        counts.update(set().union(*(content_words(f"{piece.title}\n{piece.text}") for piece in own)))
        num_documents += 1
    return counts, num_documents


def is_rare(word: str, counts: Mapping[str, int], num_documents: int) -> bool:
    """Whether a word stands in few documents, so that it can name one."""
    return counts.get(word, 0) <= max(1, RARE * num_documents)


def subject_words(piece: Piece, counts: Mapping[str, int], num_documents: int) -> set[str]:
    """Words of which a question must hold one, to say what it is about.

    Those of the title that few other documents hold; or, where the text has none of them, its rare names.
    """
    text = set(words(piece.text))
    titled = (content_words(piece.title) & text) - GENERIC
    rare = {word for word in titled if is_rare(word, counts, num_documents)}
    named = (word for word in names(piece.text) if not word.isdecimal())
    return rare or {word for word in named if is_rare(word, counts, num_documents)}


def subject(piece: Piece, wanted: set[str]) -> str:
    """What a piece is about: its title, or, where its text has no word of that, the rare name that it says most."""
    if set(words(piece.title)) & wanted:
        return piece.title
    said = re.findall(r"\w+", piece.text)
    named = Counter(word for word in said if word[0].isupper() and folded(word) in wanted)
    return named.most_common(1)[0][0] if named else piece.title


def told_of(piece: Piece, wanted: set[str]) -> str:
    """What a general request asks of: a piece's subject, with its last section where that is another."""
    about = subject(piece, wanted)
    return f"{piece.section[-1]} ({about})" if piece.section and piece.section[-1] != about else about


def question_problem(
    question: str, piece: Piece, wanted: set[str], seen: set[str], share: float = IN_THE_TEXT
) -> str | None:
    """Why a question cannot be asked.

    Args:
        question: the candidate.
        piece: what it is about.
        wanted: words of which it must hold one, if there are any.
        seen: the folded questions that came before.
        share: of its words that the piece must hold.
    """
    if not question.endswith("?") or len(words(question)) < 4:
        return NOT_A_QUESTION
    if GENERIC & set(words(question)):
        return OF_THE_TEXT
    if wanted and not wanted & set(words(question)):
        return VAGUE
    asked = {stem(word) for word in content_words(question)}
    if len(asked & stems(f"{piece.title} {piece.text}")) < share * len(asked):
        return PRESUMES
    if " ".join(words(question)) in seen:
        return AGAIN
    return None


def answer_problem(
    question: str, answers: Sequence[str], from_memory: str, piece: Piece, needs: Needs = "words"
) -> tuple[str | None, str]:
    """Why an answer cannot be taught, and the sentence that it stands in.

    Args:
        question: what was asked.
        answers: with the document in view, the likeliest first; most must agree with it.
        from_memory: without it.
        piece: the document's.
        needs: what of an answer must be new.
    """
    new, claimed = added(answers[0], question), claims(answers[0], question, piece.text)
    numbers = {claim for claim in claimed if claim[0].isdecimal()}
    if not {"name": claimed - numbers, "number": numbers, "words": claimed or len(new) >= FEW}[needs]:
        return NO_ANSWER, ""
    quote, share = best_sentence(piece.text, claimed or new)
    if share < (1 if claimed else IN_ONE_SENTENCE):
        return NOT_IN_TEXT, ""
    alike = sum(_agree(answers[0], other, question, piece) for other in answers)
    if 2 * alike <= len(answers):
        return UNSURE, quote
    if (claimed or new) <= set(words(from_memory)):
        return KNOWN, quote
    return None, quote


def _agree(left: str, right: str, question: str, piece: Piece) -> bool:
    """Whether one answer claims all that the other does; where neither claims anything, whether half the words are."""
    a, b = (claims(text, question, piece.text) for text in (left, right))
    if a or b:
        return bool(a and b) and (a <= b or b <= a)
    mine, theirs = ({stem(word) for word in added(text, question)} for text in (left, right))
    return 2 * len(mine & theirs) >= max(1, len(mine))
