"""Reports: what a run learned, what it forgot and what it cost, for the terminal and as one HTML page.

Reads plain dictionaries (docs/report.md holds their schema), needs no torch, and imports matplotlib,
jinja2, numpy and rich only when something is drawn or resampled.
"""

from selftaught.reports.html import render_html, write_report
from selftaught.reports.sequence import compose_sequence
from selftaught.reports.sequence_html import render_sequence, write_sequence
from selftaught.reports.sequence_words import sequence_headline, sequence_table
from selftaught.reports.tables import headline, headline_table, lift_line

__all__ = [
    "compose_sequence",
    "headline",
    "headline_table",
    "lift_line",
    "render_html",
    "render_sequence",
    "sequence_headline",
    "sequence_table",
    "write_report",
    "write_sequence",
]
