"""How well an answer about a document is: strictly, and leniently.

lenient: it holds some of what was asked for, and claims nothing that neither document, question nor answer hold.
strict: it is right by the example's scorer as well.

A claim is a name or a number. So false words that are neither go unnoticed, and these rules are lenient with them; what
can be checked by rules is what a document's questions mostly ask for.
"""

from __future__ import annotations

from selftaught.evaluation.scorers import score
from selftaught.types import Example
from selftaught.words import added, names, stem, stems


def grade(completion: str, example: Example) -> tuple[bool, bool]:
    """Whether an answer is strictly and leniently right; without a document or a reference, both are the scorer's.

    Args:
        completion: the answer.
        example: what was asked, with its document as `context`.
    """
    right = score(completion, example)
    references = [text for text in (example.demonstration, *example.answers) if text]
    if not example.context or not references:
        return right, right
    told = " ".join([example.context, example.question, *references])
    there = stems(told)
    if any(stem(word) not in there for word in names(completion)):
        return False, False
    said = stems(completion)
    some = any(stem(word) in said for reference in references for word in added(reference, example.question))
    return right, right or some
