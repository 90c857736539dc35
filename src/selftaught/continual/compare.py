"""A retention report for any two models: what the second has kept, lost and gained of what the first can do."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from selftaught._version import __version__
from selftaught.continual.jobs import Job, Suite, Watch, probe_suites, run_jobs, skill_suite
from selftaught.data import load_examples
from selftaught.errors import ConfigError
from selftaught.evaluation.scorers import check_scorers
from selftaught.ledger.gate import Comparison, judge
from selftaught.ledger.store import now


def compare(
    first: str | Path,
    second: str | Path,
    data: Sequence[str | Path] = (),
    probes: Literal["bank", "standard", "none"] = "standard",
    tolerance: float = 0.03,
    watch: Watch = lambda event: None,
    processes: int = 0,
) -> dict[str, Any]:
    """Asks two models the same and compares them item by item.

    Args:
        first: an embedded name, a model's directory, a run's folder, or a hub id.
        second: another.
        data: data sets to ask as well; their test rows if they have some, else all rows.
        probes: the standard probes, the gate's larger bank, or none.
        tolerance: the largest drop that counts as kept, as a fraction.
        watch: told what happens.
        processes: how many answer; 0 is one a core.

    Returns:
        {"schema", "kind", "created", "selftaught", "first", "second", "drift_nats": KL(first‖second) a token (None
        where the two have different tokens),
        "outcome", "sentence", "checks": one a suite, "flips": {suite: [{"id", "question", "gained", "before",
        "after"}]}}.

    Raises:
        SelftaughtError: with one line that says what is wrong and how to mend it.
    """
    from selftaught.models.resolve import resolve_model

    paths = [str(resolve_model(model)) for model in (first, second)]
    suites = _suites(data, probes, paths[0])
    alike = _same_tokens(*paths)  # else the tokens of one mean nothing to the other
    jobs = [
        Job("first", str(first), paths[0], None, suites=suites),
        Job("second", str(second), paths[1], None, suites=suites, origin=paths[0] if alike else None),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        before, after = run_jobs([(job, Path(scratch) / job.name) for job in jobs], watch, processes)
    comparisons = [_comparison(suite, before, after, tolerance) for suite in suites]
    return {
        "schema": 1,
        "kind": "compare",
        "created": now(),
        "selftaught": __version__,
        "first": str(first),
        "second": str(second),
        "drift_nats": after["drift_nats"] if alike else None,
        **judge(comparisons).as_dict(),
        "flips": {suite.name: _flips(suite, before, after) for suite in suites},
    }


def _suites(data: Sequence[str | Path], probes: str, model: str) -> tuple[Suite, ...]:
    """All that is asked, under names of their own."""
    suites = [*(probe_suites(bank=probes == "bank") if probes != "none" else ())]
    for source in data:
        suite = _suite(source, model)
        if suite.name in {one.name for one in suites}:  # facts.jsonl and the probes of facts
            suite = dataclasses.replace(suite, name=str(source))
        if suite.name in {one.name for one in suites}:
            raise ConfigError(f"{source}: is named twice")
        suites.append(suite)
    if not suites:
        raise ConfigError("nothing to ask: name a data set with --data, or take the probes")
    return tuple(suites)


def _same_tokens(first: str, second: str) -> bool:
    from selftaught.models.load import load_tokenizer

    ours, theirs = (load_tokenizer(Path(path)).get_vocab() for path in (first, second))
    return bool(ours == theirs)


def _suite(source: str | Path, model: str) -> Suite:
    examples = load_examples(source)
    check_scorers(examples)
    suite = skill_suite(Path(source).stem, examples, model)
    return suite if suite.examples else Suite(suite.name, "skill", tuple(examples), suite.max_new_tokens)


def _comparison(suite: Suite, before: dict[str, Any], after: dict[str, Any], tolerance: float) -> Comparison:
    old, new = (
        {item["id"]: bool(item["correct"]) for item in record["suites"][suite.name]["results"]}
        for record in (before, after)
    )
    return Comparison(suite.name, suite.kind, old, new, suite.clusters, tolerance)


def _flips(suite: Suite, before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    old, new = (record["suites"][suite.name]["results"] for record in (before, after))
    questions = {example.id: example.question for example in suite.examples}
    return [
        {
            "id": one["id"],
            "question": questions[one["id"]],
            "gained": other["correct"],
            "before": one["completion"],
            "after": other["completion"],
        }
        for one, other in zip(old, new, strict=True)
        if one["correct"] != other["correct"]
    ]
