"""Questions about documents: written by a model, checked, and kept in a file that a person can read and edit.

Every question that is kept can be answered with its piece in context, is answered alike when it is asked again, says
what it is about, has an answer that stands in the piece, and is not answered so without it. The others are kept in a
second file, each with its reason.
"""

from selftaught.questions.making import QUESTIONS_FILE, REJECTED_FILE
from selftaught.questions.retrieval import Retriever
from selftaught.questions.writers import Writer, open_writer

__all__ = ["QUESTIONS_FILE", "REJECTED_FILE", "Retriever", "Writer", "open_writer"]
