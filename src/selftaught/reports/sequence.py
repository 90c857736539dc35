"""The sequential experiment as one report: what each method learned, kept and forgot, stage by stage.

R[i][j] is the accuracy on the j-th skill after the i-th of N stages; row 0 is the untaught base. From it:

* average accuracy: the mean over j of R[N][j];
* backward transfer: the mean over j < N of R[N][j] − R[j][j] (Lopez-Paz & Ranzato 2017, arXiv 1706.08840);
* forgetting: the mean over j < N of max over j ≤ i < N of R[i][j], minus R[N][j] (Chaudhry et al. 2018, arXiv
  1801.10112), taken seed by seed;
* kept: R[N][j] / R[j][j], of means over the seeds: the share of a skill's accuracy at the end of its own stage that
  is left after the last;
* forgotten, of the probes: the base's accuracy minus the last model's; a mean of families counts each once.

Intervals hold 95%; `resampling` says how they are made. See docs/report.md for the result.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from selftaught._version import __version__
from selftaught.errors import DataError
from selftaught.reports.compose import machine
from selftaught.reports.sequence_checks import differences, sequence_checks
from selftaught.reports.sequence_words import sequence_title

if TYPE_CHECKING:
    from selftaught.reports.resampling import Draws

Record = Mapping[str, Any]
Runs = Mapping[str, Mapping[int, Sequence[Record]]]

NUM_EXAMPLES = {"forgotten": 3, "learned": 2}  # of each skill


def compose_sequence(
    order: Sequence[str],
    base: Record,
    runs: Runs,
    labels: Mapping[str, str],
    model: Mapping[str, Any],
    clusters: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A report of a sequence of skills, taught by several methods with several seeds.

    Args:
        order: the skills, as they were taught.
        base: the record of the untaught model (see `continual.run_job`), with its answers by suite.
        runs: of each method and seed, the records of its stages.
        labels: how to call the methods.
        model: the model that every run began from.
        clusters: of items that stand or fall together, such as wordings of one fact: item id → the cluster's name.
            They are resampled together; an item that is not named stands alone.

    Raises:
        DataError: (a ValueError) records lack a stage or a suite, or were asked other items.
    """
    from selftaught.reports import resampling

    _check(order, base, runs)
    stages = {
        method: {seed: [_right(record) for record in chain] for seed, chain in chains.items()}
        for method, chains in runs.items()
    }
    grouping = _grouping(base, clusters or {})
    draws = resampling.draw(_right(base), stages, grouping)
    families = [name for name, suite in base["suites"].items() if suite["kind"] == "probe"]
    summary = [_summary(draws, order, families, method, runs[method], labels[method]) for method in runs]
    compared = differences(draws, order, families, summary, runs)
    return {
        "schema": 1,
        "kind": "sequential",
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "selftaught": __version__,
        "title": sequence_title(len(order)),
        "model": dict(model),
        "machine": machine(max(record.get("processes") or 1 for record in _records(runs))),
        "order": list(order),
        "labels": {method: labels[method] for method in runs},
        "seeds": list(dict.fromkeys(seed for chains in runs.values() for seed in chains)),
        "suites": {
            name: {"kind": suite["kind"], "items": len(suite["results"]), "clusters": len(set(grouping[name]))}
            for name, suite in base["suites"].items()
        },
        "base": _base(draws, order, families),
        "runs": [
            _run(order, method, labels[method], seed, chain)
            for method, chains in runs.items()
            for seed, chain in chains.items()
        ],
        "summary": summary,
        "differences": compared,
        "intervals": {"draws": resampling.NUM_DRAWS, "seed": resampling.SEED, "resampled": _resampled(runs)},
        "examples": _examples(order, base, runs),
        "checks": sequence_checks(order, summary, compared),
    }


def _resampled(runs: Runs) -> list[str]:
    return ["seeds", "items"] if min(len(chains) for chains in runs.values()) > 1 else ["items"]


def _records(runs: Runs) -> list[Record]:
    return [record for chains in runs.values() for chain in chains.values() for record in chain]


# ------------------------------------------------------------------------------ what must be alike


def _check(order: Sequence[str], base: Record, runs: Runs) -> None:
    """Refuses records that cannot be compared item by item."""
    if not order or not runs or not all(runs.values()):
        raise DataError("sequence: there must be a skill, a method, and a seed of each method")
    missing = [name for name in order if name not in base["suites"]]
    if missing:
        raise DataError(f"sequence: the base was not asked the skill {missing[0]!r}; evaluate all skills of the order")
    expected = {name: _ids(suite) for name, suite in base["suites"].items()}
    empty = [name for name, ids in expected.items() if not ids]
    if empty:
        raise DataError(f"sequence: the suite {empty[0]!r} has no items")
    for method, chains in runs.items():
        for seed, chain in chains.items():
            if len(chain) != len(order):
                raise DataError(f"sequence: {method} with seed {seed} has {len(chain)} stages instead of {len(order)}")
            for stage, record in enumerate(chain, start=1):
                _check_items(expected, record, f"{method} with seed {seed}, stage {stage}")


def _check_items(expected: Mapping[str, Sequence[str]], record: Record, where: str) -> None:
    if set(record["suites"]) != set(expected):
        odd = sorted(set(record["suites"]) ^ set(expected))
        raise DataError(f"sequence: {where} and the base differ in the suites they were asked: {', '.join(odd)}")
    for name, ids in expected.items():
        found = _ids(record["suites"][name])
        if found == ids:
            continue
        place = next((at for at, (a, b) in enumerate(zip(found, ids)) if a != b), min(len(found), len(ids)))
        here, there = (row[place] if place < len(row) else "nothing" for row in (found, ids))
        raise DataError(
            f"sequence: {where} was asked other items of {name!r} than the base: item {place + 1} is {here!r} "
            f"instead of {there!r}; evaluate all models on the same data"
        )


def _ids(suite: Mapping[str, Any]) -> list[str]:
    return [item["id"] for item in suite["results"]]


def _right(record: Record) -> dict[str, list[bool]]:
    return {name: [bool(item["correct"]) for item in suite["results"]] for name, suite in record["suites"].items()}


def _grouping(base: Record, clusters: Mapping[str, str]) -> dict[str, list[tuple[bool, str]]]:
    """Each item's cluster, by suite; a lone item's own id never meets a cluster of that name."""
    return {
        name: [(item in clusters, clusters.get(item, item)) for item in _ids(suite)]
        for name, suite in base["suites"].items()
    }


# ---------------------------------------------------------------------------------------- numbers


def _base(draws: Draws, order: Sequence[str], families: Sequence[str]) -> dict[str, Any]:
    from selftaught.reports.resampling import estimate

    return {
        "accuracy": {name: estimate(values) for name, values in draws.base.items()},
        "average": estimate(_mean([draws.base[name] for name in order])),
        "probe_mean": estimate(_mean([draws.base[name] for name in families])) if families else None,
    }


def _summary(
    draws: Draws,
    order: Sequence[str],
    families: Sequence[str],
    method: str,
    chains: Mapping[int, Sequence[Record]],
    label: str,
) -> dict[str, Any]:
    """What one method learned, kept and forgot, over its seeds."""
    from selftaught.reports.resampling import average, backward_transfer, estimate, forgetting, ratio

    skills, num = draws.skills(method, order), len(order)
    means = draws.over_seeds(method, skills)
    kept = {name: estimate(ratio(means[:, -1, j], means[:, j, j])) for j, name in enumerate(order[:-1])}
    several = num > 1
    return {
        "method": method,
        "label": label,
        "matrix": [{name: estimate(means[:, i, j]) for j, name in enumerate(order)} for i in range(num)],
        "average": estimate(draws.over_seeds(method, average(skills))),
        "backward_transfer": estimate(draws.over_seeds(method, backward_transfer(skills))) if several else None,
        "forgetting": estimate(draws.over_seeds(method, forgetting(skills))) if several else None,
        "kept": kept,
        "probes": {name: _probe(draws, method, [name]) for name in families},
        "probe_mean": _probe(draws, method, families) if families else None,
        "drift_nats": _drift(chains, num),
        "seconds": _total(chains, "seconds"),
        "steps": _total(chains, "steps"),
        "tokens": _total(chains, "tokens"),
        "peak_memory_gib": max((r["peak_memory_gib"] for r in _flat(chains) if r.get("peak_memory_gib")), default=None),
    }


def _probe(draws: Draws, method: str, families: Sequence[str]) -> dict[str, Any]:
    """Accuracy after each stage and what was forgotten in the end, of the mean of some families."""
    from selftaught.reports.resampling import estimate

    means = draws.over_seeds(method, _mean([draws.stages[method][name] for name in families]))
    before = _mean([draws.base[name] for name in families])
    return {
        "stages": [estimate(means[:, stage]) for stage in range(means.shape[1])],
        "forgotten": estimate(before - means[:, -1]),
    }


def _mean(arrays: Sequence[Any]) -> Any:
    return sum(arrays) / len(arrays)


def _drift(chains: Mapping[int, Sequence[Record]], num_stages: int) -> list[dict[str, float | None]] | None:
    """Drift after each stage, with an interval over seeds; None if it was not measured."""
    from selftaught.reports.resampling import over_few

    if any(record.get("drift_nats") is None for record in _flat(chains)):
        return None
    return [over_few([chain[stage]["drift_nats"] for chain in chains.values()]) for stage in range(num_stages)]


def _flat(chains: Mapping[int, Sequence[Record]]) -> list[Record]:
    return [record for chain in chains.values() for record in chain]


def _total(chains: Mapping[int, Sequence[Record]], field: str) -> float | None:
    """A cost of all stages, as the seeds' mean; None if a stage does not know it."""
    if any(record.get(field) is None for record in _flat(chains)):
        return None
    return fmean(sum(record[field] for record in chain) for chain in chains.values())


def _run(order: Sequence[str], method: str, label: str, seed: int, chain: Sequence[Record]) -> dict[str, Any]:
    """One method with one seed, stage by stage, without its answers."""
    fields = ("name", "drift_nats", "seconds", "steps", "tokens", "peak_memory_gib", "processes", "config")
    stages = [
        {
            "skill": skill,
            **_accuracies(record),
            **{field: record.get(field) for field in fields},
            "stopped": record.get("stopped"),
        }
        for skill, record in zip(order, chain, strict=True)
    ]
    return {"method": method, "label": label, "seed": seed, "stages": stages}


def _accuracies(record: Record) -> dict[str, Any]:
    """By suite, and of suites with several groups by group."""
    groups: dict[str, dict[str, list[bool]]] = {}
    for name, suite in record["suites"].items():
        for item in suite["results"]:
            groups.setdefault(name, {}).setdefault(item["group"], []).append(bool(item["correct"]))
    return {
        "accuracy": {name: fmean(answers) for name, answers in _right(record).items()},
        "groups": {
            name: {group: fmean(answers) for group, answers in parts.items()}
            for name, parts in groups.items()
            if len(parts) > 1
        },
    }


# ---------------------------------------------------------------------------------------- answers


def _examples(order: Sequence[str], base: Record, runs: Runs) -> list[dict[str, Any]]:
    """Some answers that teaching changed, of each method's first seed; first those that tell the methods apart."""
    firsts = {method: next(iter(chains.items())) for method, chains in runs.items()}
    found = []
    for place, skill in enumerate(order):
        rows = [
            _example(place, skill, index, item, firsts) for index, item in enumerate(base["suites"][skill]["results"])
        ]
        for change, number in NUM_EXAMPLES.items():
            changed = [row for row in rows if row["change"] == change]
            changed.sort(key=lambda row: len({said["last"]["correct"] for said in row["methods"].values()}) < 2)
            found += changed[:number]
    return found


def _example(
    place: int, skill: str, index: int, item: Mapping[str, Any], firsts: Mapping[str, tuple[int, Sequence[Record]]]
) -> dict[str, Any]:
    """One item before, after its own stage, and after the last."""
    methods: dict[str, dict[str, Any]] = {
        method: {
            "seed": seed,
            "own": _said(chain[place]["suites"][skill]["results"][index]),
            "last": _said(chain[-1]["suites"][skill]["results"][index]),
        }
        for method, (seed, chain) in firsts.items()
    }
    before, change = _said(item), None
    if any(said["own"]["correct"] and not said["last"]["correct"] for said in methods.values()):
        change = "forgotten"
    elif not before["correct"] and any(said["last"]["correct"] for said in methods.values()):
        change = "learned"
    return {
        "skill": skill, "id": item["id"], "group": item["group"], "change": change, "base": before, "methods": methods,
    }  # fmt: skip


def _said(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": item["completion"], "correct": bool(item["correct"])}
