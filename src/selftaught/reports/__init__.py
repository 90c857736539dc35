"""Reports: what a run learned, what it forgot and what it cost, for the terminal and as one HTML page.

Reads plain dictionaries (docs/report.md holds their schema), needs no torch, and imports matplotlib,
jinja2 and rich only when something is drawn.
"""

from selftaught.reports.html import render_html, write_report
from selftaught.reports.tables import headline, headline_table, lift_line

__all__ = ["headline", "headline_table", "lift_line", "render_html", "write_report"]
