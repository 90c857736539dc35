"""Documents: a file or a folder, read into pieces that keep their title, section and page.

before = load_records(store)
records = read_documents(folder, store)
for piece in pieces_of(store, records): ...
changes(before, records)
"""

from selftaught.data.documents.reading import MAX_WORDS, cut_text, read_documents
from selftaught.data.documents.store import changes, load_records, pieces_of
from selftaught.data.documents.types import Change, DocumentRecord, Piece, Progress, Status, Watch

__all__ = [
    "MAX_WORDS",
    "Change",
    "DocumentRecord",
    "Piece",
    "Progress",
    "Status",
    "Watch",
    "changes",
    "cut_text",
    "load_records",
    "pieces_of",
    "read_documents",
]
