"""A retention report for any two models: what the second has kept, lost and gained of what the first can do."""

from __future__ import annotations

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
        {"schema", "kind", "created", "selftaught", "first", "second", "drift_nats": KL(first‖second) a token,
        "outcome", "sentence", "checks": one a suite, "flips": {suite: [{"id", "question", "gained", "before",
        "after"}]}}.

    Raises:
        SelftaughtError: with one line that says what is wrong and how to mend it.
    """
    from selftaught.models.resolve import resolve_model

    paths = [str(resolve_model(model)) for model in (first, second)]
    suites = [_suite(source, paths[0]) for source in data]
    suites += probe_suites(bank=probes == "bank") if probes != "none" else ()
    if not suites:
        raise ConfigError("nothing to ask: name a data set with --data, or take the probes")
    if len({suite.name for suite in suites}) < len(suites):
        raise ConfigError("two of the data sets have one name; rename a file")
    jobs = [
        Job("first", str(first), paths[0], None, suites=tuple(suites)),
        Job("second", str(second), paths[1], None, suites=tuple(suites), drift_base=paths[0]),
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
        "drift_nats": after["drift_nats"],
        **judge(comparisons).as_dict(),
        "flips": {suite.name: _flips(suite, before, after) for suite in suites},
    }


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
