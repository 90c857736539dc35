"""The page of a retention report: two models side by side, family by family, and the items that flipped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftaught.reports.drawing import Style
from selftaught.reports.page import answer_text, render, write_pair

OUTCOMES = ("kept", "regressed", "undecided")
STYLES = (Style(0, "#5b6675", "#9ba6b4", "o"), Style(1, "#0a6fa8", "#53b5ea", "s"))


def write_comparison(report: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.html, each whole or not at all.

    Args:
        report: what `continual.compare.compare` returns.
        folder: made if it is missing.

    Raises:
        ArtifactError: they cannot be written.
    """
    return write_pair(report, render(report, "comparison.html.j2", _view), folder)


def _view(report: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the template shows, in words."""
    return {
        "title": "Retention report",
        "headline": headline(report),
        "created": report["created"],
        "comparisons": [],
        "styles": STYLES,
        "first": report["first"],
        "second": report["second"],
        "rows": [_row(check) for check in report["checks"]],
        "drift": report["drift_nats"],
        "flips": [
            {
                "suite": suite,
                "id": flip["id"],
                "question": flip["question"],
                "gained": flip["gained"],
                "answers": [
                    ("first", answer_text({"text": flip["before"], "correct": not flip["gained"]})),
                    ("second", answer_text({"text": flip["after"], "correct": flip["gained"]})),
                ],
            }
            for suite, flips in report["flips"].items()
            for flip in sorted(flips, key=lambda one: one["gained"])
        ],
    }


def headline(report: Mapping[str, Any]) -> str:
    """The report in a sentence."""
    by = {word: [c["name"] for c in report["checks"] if c["outcome"] == word] for word in OUTCOMES}
    parts = []
    if by["regressed"]:
        parts.append(f"{', '.join(by['regressed'])} regressed")
    if by["kept"]:
        parts.append(f"{', '.join(by['kept'])} {'was' if len(by['kept']) == 1 else 'were'} kept")
    if by["undecided"]:
        parts.append(f"too few items to say of {', '.join(by['undecided'])}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _row(check: Mapping[str, Any]) -> dict[str, str]:
    outcome = check["outcome"]
    return {
        "name": check["name"],
        "total": f"{check['total']:,} items",
        "before": f"{check['before']:.1%}",
        "after": f"{check['after']:.1%}",
        "change": f"{100 * check['change']:+.1f}".replace("-", "−"),
        "limits": f"{100 * check['low']:+.1f} to {100 * check['high']:+.1f}".replace("-", "−"),
        "flips": f"{check['gained']} gained, {check['lost']} lost",
        "outcome": outcome,
        "tone": {"kept": "up", "regressed": "down"}.get(outcome, ""),
        "tolerance": f"{100 * check['tolerance']:g}",
    }
