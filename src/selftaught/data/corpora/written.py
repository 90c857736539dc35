"""The built-in corpus as a person would have it: a folder of files in several formats, and questions about them."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftaught.data.corpora import disasters, events
from selftaught.data.rows import to_json_lines
from selftaught.files import write_bytes, write_text

Event = Mapping[str, Any]
TABLE_ROWS = 4  # events in the one table


def write_disasters(folder: Path, questions: Path, event_ids: tuple[str, ...] | None = None) -> None:
    """Writes each event's article to a file, in turn as text, Markdown, HTML, Word and PDF, the last as a table.

    Args:
        folder: for the articles; made if missing.
        questions: file for the corpus' own questions (groups "direct", "paraphrase", "indirect"), all of split "test".
        event_ids: some of the events; None takes all 44.
    """
    chosen = [event for event in events() if event_ids is None or event["id"] in event_ids]
    kinds = tuple(WRITERS.items())
    single, listed = chosen[: max(1, len(chosen) - TABLE_ROWS)], chosen[max(1, len(chosen) - TABLE_ROWS) :]
    folder.mkdir(parents=True, exist_ok=True)
    for number, event in enumerate(single):
        suffix, write = kinds[number % len(kinds)]
        path = folder / f"{event['id']}{suffix}"
        if not path.is_file():
            write(event, path)
    if listed:
        text = io.StringIO(newline="")
        rows = csv.writer(text)
        rows.writerow(("title", "report"))
        rows.writerows((title(event), event["article"]) for event in listed)
        write_text(folder / "more.csv", text.getvalue())
    asked = [replace(row, split="test", context=None) for row in disasters(event_ids)]
    write_text(questions, to_json_lines(asked))


def title(event: Event) -> str:
    """An event's name, as a headline."""
    name = str(event["name"])
    return name[:1].upper() + name[1:]


def _text(event: Event, path: Path) -> None:
    write_text(path, f"{title(event)}\n\n{event['article']}\n")


def _markdown(event: Event, path: Path) -> None:
    write_text(path, f"# {title(event)}\n\n{event['article']}\n")


def _html(event: Event, path: Path) -> None:
    name, article = html.escape(title(event)), html.escape(event["article"])
    page = f"<h1>{name}</h1>\n<p>{article}</p>"
    write_text(
        path,
        f'<!DOCTYPE html>\n<html lang="en">\n<head><title>{name}</title></head>\n<body>\n{page}\n</body>\n</html>\n',
    )


def _word(event: Event, path: Path) -> None:
    from docx import Document

    document = Document()
    document.core_properties.title = title(event)
    document.add_heading(title(event), 1)
    document.add_paragraph(event["article"])
    draft = io.BytesIO()
    document.save(draft)
    write_bytes(path, draft.getvalue())


def _pdf(event: Event, path: Path) -> None:
    import textwrap

    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    page = Figure(figsize=(8.3, 11.7))
    page.text(0.1, 0.92, title(event), fontsize=16)
    page.text(0.1, 0.89, textwrap.fill(event["article"], 80), fontsize=10, va="top")
    draft = io.BytesIO()
    with PdfPages(draft, metadata={"Title": title(event), "CreationDate": None}) as pages:
        pages.savefig(page)
    write_bytes(path, draft.getvalue())


WRITERS: dict[str, Callable[[Event, Path], None]] = {
    ".txt": _text,
    ".md": _markdown,
    ".html": _html,
    ".docx": _word,
    ".pdf": _pdf,
}
