"""Questions of the kinds that take a capable writer: asked for in words, and each verified before it is kept.

A question is kept if it is well worded, quotes what stands in its pieces, is answered alike in most of several draws
with them in view, and is not answered so from memory; of two pieces, also if neither is enough alone. What the
documents do not state is kept if every answer says so, with the pieces in view that fit it best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from selftaught.config import QuestionKind
from selftaught.data.documents import Piece
from selftaught.questions.agreeing import NOT_STATED, UNSTATED, Asked, agree, holds, is_unstated, says_something
from selftaught.questions.checking import IN_THE_TEXT, KNOWN, NO_ANSWER, UNSURE, VAGUE, question_problem, subject
from selftaught.questions.direct import fact_of
from selftaught.questions.means import Means
from selftaught.questions.replies import Draft, Request, answers, drafts
from selftaught.questions.rows import Row, rejected_of, row_of
from selftaught.questions.writing import closed_book
from selftaught.words import words

PAIRED: frozenset[QuestionKind] = frozenset({"comparison", "multi_hop"})
NEED_OTHERS: frozenset[QuestionKind] = PAIRED | {"unstated"}
ELSEWHERE = 2  # pieces beside its own that are searched for the answer to an unstated question
LEAST_QUOTED = 2  # words
UNREADABLE = "was not written in the form that was asked for"
NO_PARTNER = "has no other document to go with it"
NOT_QUOTED = "rests on words that do not stand in the text"
ANOTHER = "asks for something else than what it rewords"
UNANSWERED = "is not answered by the text"
ONE_IS_ENOUGH = "is answered by one of its texts alone"
STATED = "is answered by the documents"


@dataclass(frozen=True)
class _Item:
    """A question on its way, with all that was answered to it."""

    request: Request
    draft: Draft
    drawn: tuple[str, ...] = ()  # with the pieces in view
    memory: str = ""
    alone: tuple[str, ...] = ()  # with other pieces in view: each of two by itself, or those of other documents

    @property
    def answer(self) -> str:
        """What is taught."""
        if self.request.kind == "unstated":
            return UNSTATED
        return str(self.request.rewords["answer"]) if self.request.rewords else self.draft.answer


def questions_in_words(batch: Sequence[Piece], means: Means, direct: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Questions of all kinds but the direct ones.

    Args:
        batch: what they are about.
        means: who writes them; the kinds are those of its configuration.
        direct: the questions that were kept of the same pieces.
    """
    kept: list[Row] = []
    rejected: list[Row] = []
    for kind in means.config.kinds:
        if kind == "direct":
            continue
        for draw in range(means.config.wordings if kind == "paraphrase" else 1):
            rows = [*direct, *kept]
            requests, refused = _rewordings(batch, means, rows) if kind == "paraphrase" else _wanted(kind, batch, means)
            more, refused_later = _verified(requests, means, rows, draw)
            kept, rejected = kept + more, rejected + refused + refused_later
    return kept, rejected


def _wanted(kind: QuestionKind, batch: Sequence[Piece], means: Means) -> tuple[list[Request], list[Row]]:
    """A question of each piece; and the pieces that have no partner where they need one."""
    requests: list[Request] = []
    rejected: list[Row] = []
    for piece in batch:
        partners: list[Piece] = []
        if kind in PAIRED and means.retriever:
            partners = means.retriever.best(f"{piece.title}\n{piece.text}", 1, outside=piece.document)
        if kind in PAIRED and not partners:
            rejected.append(rejected_of(piece, "", NO_PARTNER) | {"kind": kind})
        else:
            about = subject(piece, means.wanted(piece))
            requests.append(Request(kind, (piece, *partners), about, held_out=kind == "indirect"))
    return requests, rejected


def _rewordings(batch: Sequence[Piece], means: Means, rows: Sequence[Row]) -> tuple[list[Request], list[Row]]:
    """One more wording of each fact that lacks one: as many as are to be taught, then one that is asked only."""
    pieces = {piece.id: piece for piece in batch}
    facts: dict[tuple[str, frozenset[str]], list[Row]] = {}
    for row in rows:
        if "kind" not in row:
            facts.setdefault(fact_of(pieces[row["piece"]], row["question"], row["answer"]), []).append(row)
    requests = []
    for first, *others in facts.values():
        reworded = [row for row in rows if row.get("rewords") == first["id"]]
        enough = sum(row["split"] == "train" for row in (first, *others, *reworded)) >= means.config.wordings
        if not any(row["split"] == "test" for row in reworded):
            piece = pieces[first["piece"]]
            wordings = tuple(row["question"] for row in (first, *others, *reworded))
            about = subject(piece, means.wanted(piece))
            requests.append(Request("paraphrase", (piece,), about, enough, first, wordings))
    return requests, []


# -------------------------------------------------------------------------------------- verification


def _verified(requests: Sequence[Request], means: Means, rows: Sequence[Row], draw: int) -> tuple[list[Row], list[Row]]:
    """What is written at request, sorted out by its words, answered, and sorted out by the answers."""
    kept: list[Row] = []
    rejected: list[Row] = []
    left: list[_Item] = []
    seen = {" ".join(words(row["question"])) for row in rows}
    replies = drafts(means.writer, requests, means.config.temperature if draw else 0.0, means.seed + draw)
    for request, reply in zip(requests, replies, strict=True):
        if isinstance(reply, str):
            refused = rejected_of(request.pieces[0], "", UNREADABLE) | {"kind": request.kind, "reply": reply}
            rejected.append(refused)
            continue
        item = _Item(request, reply)
        problem = _wording_problem(item, means, seen)
        seen.add(" ".join(words(reply.question)))
        if problem is None:
            left.append(item)
        else:
            rejected.append(_refused(item, problem))
    for item in _answered(left, means):
        problem = _answer_problem(item, _asked(item, means))
        if problem is None:
            kept.append(_row(item, [*rows, *kept]))
        else:
            rejected.append(_refused(item, problem))
    return kept, rejected


def _wording_problem(item: _Item, means: Means, seen: set[str]) -> str | None:
    """Why a question cannot be asked, or does not rest on its pieces."""
    request, draft = item.request, item.draft
    wanted = [means.wanted(piece) for piece in request.pieces]
    whole = replace(request.pieces[0], title=" ".join(piece.title for piece in request.pieces), text=request.text)
    share = 0.0 if request.kind == "indirect" else IN_THE_TEXT
    problem = question_problem(draft.question, whole, set().union(*wanted), seen, share)
    if problem is not None:
        return problem
    if request.kind == "comparison" and any(one and not one & set(words(draft.question)) for one in wanted):
        return VAGUE
    texts = [" ".join(piece.text.split()) for piece in request.pieces]
    quotes = [quote for quote in draft.quotes if len(quote.split()) >= LEAST_QUOTED]
    stand = all(any(quote in text for text in texts) for quote in quotes)
    if not stand or not all(any(quote in text for quote in quotes) for text in texts):
        return NOT_QUOTED
    asked = _asked(item, means)
    if request.kind != "unstated" and not says_something(draft.answer, asked):
        return NO_ANSWER
    if request.kind == "paraphrase" and not agree(item.answer, draft.answer, asked):
        return ANOTHER
    return None


def _asked(item: _Item, means: Means) -> Asked:
    """What its answers are compared by."""
    subjects: tuple[frozenset[str], ...] = ()
    if item.request.kind == "comparison":
        wanted = [means.wanted(piece) for piece in item.request.pieces]
        common = set.intersection(*wanted)
        subjects = tuple(frozenset(one - common) for one in wanted)
    return Asked(item.draft.question, item.request.text, subjects)


def _answered(items: Sequence[_Item], means: Means) -> list[_Item]:
    """Each question answered with its pieces in view, from memory, and with other pieces in view."""
    questions = [item.draft.question for item in items]
    texts = [item.request.text for item in items]
    draws = [
        answers(means.writer, texts, questions, means.config.temperature if draw else 0.0, means.seed + draw)
        for draw in range(means.config.samples)
    ]
    memory = closed_book(means.learner, questions, means.seed)
    views = [_other_views(item, means) for item in items]
    repeated = [question for question, view in zip(questions, views, strict=True) for _ in view]
    others = iter(answers(means.writer, list(chain(*views)), repeated, 0.0, means.seed))
    return [
        replace(
            item,
            drawn=tuple(answers_to_all[number] for answers_to_all in draws),
            memory=memory[number],
            alone=tuple(islice(others, len(views[number]))),
        )
        for number, item in enumerate(items)
    ]


def _other_views(item: _Item, means: Means) -> list[str]:
    """Other texts that might answer a question: each of its two pieces alone; of what is not stated, other pieces."""
    if item.request.kind in PAIRED:
        return [piece.text for piece in item.request.pieces]
    if item.request.kind != "unstated" or not means.retriever:
        return []
    best = means.retriever.best(item.draft.question, 1 + ELSEWHERE)
    return [piece.text for piece in best if piece != item.request.pieces[0]][:ELSEWHERE]


def _answer_problem(item: _Item, asked: Asked) -> str | None:
    """Why a question is not worth teaching, by what is answered to it."""
    if item.request.kind == "unstated":
        if not all(map(is_unstated, (*item.drawn, *item.alone))):
            return STATED
        return KNOWN if is_unstated(item.memory) else None
    if 2 * sum(map(is_unstated, item.drawn)) > len(item.drawn):
        return UNANSWERED
    if 2 * sum(agree(item.answer, drawn, asked) for drawn in item.drawn) <= len(item.drawn):
        return UNSURE
    if any(agree(item.answer, alone, asked) for alone in item.alone):
        return ONE_IS_ENOUGH
    return KNOWN if holds(item.memory, item.answer, asked) else None


# ---------------------------------------------------------------------------------------------- rows


def _row(item: _Item, rows: Sequence[Row]) -> Row:
    """What is kept."""
    request, first = item.request, item.request.pieces[0]
    number = 1 + sum(row["piece"] == first.id and row.get("kind") == request.kind for row in rows)
    quote = " … ".join(item.draft.quotes)
    row = row_of(first, number, item.draft.question, item.answer, quote, request.held_out)
    row |= {"id": f"{first.id}-{request.kind}-{number}", "context": request.text, "kind": request.kind}
    if request.rewords is None:
        row["group"] = request.kind
    else:
        row["rewords"] = request.rewords["id"]
    if request.kind == "unstated":
        row["scorer"] = {"name": "regex", "params": {"pattern": NOT_STATED}}
    if len(request.pieces) == 2:
        row |= {"second_piece": request.pieces[1].id, "second_document": request.pieces[1].document}
    return row


def _refused(item: _Item, reason: str) -> Row:
    """What is not kept, with all that was answered to it."""
    row = rejected_of(item.request.pieces[0], item.draft.question, reason)
    row |= {"kind": item.request.kind, "answer": item.answer, "quotes": list(item.draft.quotes)}
    if item.drawn:
        row |= {"other_answers": list(item.drawn), "without_document": item.memory}
    if item.alone:
        row["with_others"] = list(item.alone)
    if len(item.request.pieces) == 2:
        row["second_piece"] = item.request.pieces[1].id
    return row
