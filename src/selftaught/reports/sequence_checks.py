"""SDFT beside other methods after a sequence of skills, and whether it did what it should."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from selftaught.reports.tables import nats, percent, points

if TYPE_CHECKING:
    from selftaught.reports.resampling import Draws

KEPT_SHARE = 0.95  # of each skill's accuracy at the end of its own stage
FORGOTTEN_RATIO = 0.25  # of what SFT forgets

Record = Mapping[str, Any]
Runs = Mapping[str, Mapping[int, Sequence[Record]]]


def differences(
    draws: Draws, order: Sequence[str], families: Sequence[str], summary: Sequence[Mapping[str, Any]], runs: Runs
) -> list[dict[str, Any]]:
    """SDFT against each other method, paired: the same items, and the same seeds where they have the same.

    Args:
        draws: accuracies in every draw.
        order: the skills, as they were taught.
        families: the probes.
        summary: of each method.
        runs: of each method and seed, the records of its stages.

    Returns:
        One comparison a rival; none if SDFT was not run.
    """
    sdft = next((method for method in runs if _kind(runs, method) == "sdft"), None)
    rivals = [method for method in runs if method != sdft] if sdft is not None else []
    by_name = {row["method"]: row for row in summary}
    return [_difference(draws, order, families, by_name, runs, str(sdft), rival) for rival in rivals]


def _kind(runs: Runs, method: str) -> str | None:
    chain = next(iter(runs[method].values()))
    kind: str | None = chain[0].get("method") or method
    return kind


def _difference(
    draws: Draws,
    order: Sequence[str],
    families: Sequence[str],
    summary: Mapping[str, Mapping[str, Any]],
    runs: Runs,
    ours: str,
    theirs: str,
) -> dict[str, Any]:
    from selftaught.reports.resampling import average, backward_transfer, estimate, forgetting, ratio

    pair = (ours, theirs)
    skills = [draws.skills(method, order) for method in pair]
    measures = {"average": average}
    if len(order) > 1:
        measures |= {"backward_transfer": backward_transfer, "forgetting": forgetting}
    found: dict[str, Any] = {"methods": list(pair), "kinds": [_kind(runs, method) for method in pair]}
    for name, measure in measures.items():
        mine, other = (draws.over_seeds(m, measure(values)) for m, values in zip(pair, skills, strict=True))
        found[name] = estimate(mine - other)
    found |= {"probes_forgotten": None, "probe_ratio": None}
    if families:
        mine, other = (_forgotten(draws, method, families) for method in pair)
        found |= {"probes_forgotten": estimate(mine - other), "probe_ratio": _known(estimate(ratio(mine, other)))}
    found["drift_ratio"] = _drift_ratio(runs, pair)
    seconds = [summary[method]["seconds"] for method in pair]
    found["seconds_ratio"] = seconds[0] / seconds[1] if all(seconds) else None
    return found


def _forgotten(draws: Draws, method: str, families: Sequence[str]) -> Any:
    falls = [draws.base[name] - draws.over_seeds(method, draws.stages[method][name])[:, -1] for name in families]
    return sum(falls) / len(falls)


def _known(found: dict[str, float | None]) -> dict[str, float | None] | None:
    return found if found["value"] is not None else None


def _drift_ratio(runs: Runs, pair: tuple[str, str]) -> dict[str, float | None] | None:
    """Of the drifts after the last stage: the geometric mean of the seeds' ratios, with Student's t interval."""
    from selftaught.reports.resampling import over_few

    seeds = [seed for seed in runs[pair[0]] if seed in runs[pair[1]]]
    drifts = [[runs[method][seed][-1].get("drift_nats") for seed in seeds] for method in pair]
    if not seeds or not all(drift for row in drifts for drift in row):
        return None
    logs = [math.log(ours / theirs) for ours, theirs in zip(*drifts, strict=True)]
    found = over_few(logs, least=-math.inf)
    return {name: None if value is None else math.exp(value) for name, value in found.items()}


# ----------------------------------------------------------------------------------------- checks


def sequence_checks(
    order: Sequence[str], summary: Sequence[Mapping[str, Any]], compared: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What the experiment sets out to show, and whether it did; nothing where SDFT was not compared with SFT.

    Each is judged by its value; the interval beside it says how sure that is.
    """
    pair = next((row for row in compared if row["kinds"] == ["sdft", "sft"]), None)
    if pair is None:
        return []
    ours, theirs = (next(row for row in summary if row["method"] == method) for method in pair["methods"])
    rows = [_kept_check(ours)] if len(order) > 1 else []
    rows.append(_average_check(ours, theirs, pair))
    if ours["probe_mean"] is not None:
        falls = [row["probe_mean"]["forgotten"]["value"] for row in (ours, theirs)]
        words = [points(fall) for fall in falls]
        rows.append(_part_check("probes forgotten", (ours, theirs), falls, words, "points", pair["probe_ratio"]))
    if ours["drift_nats"] and theirs["drift_nats"]:
        drifts = [row["drift_nats"][-1]["value"] for row in (ours, theirs)]
        words = [nats(drift) for drift in drifts]
        rows.append(_part_check("drift", (ours, theirs), drifts, words, "nats", pair["drift_ratio"]))
    return [{"name": name, "target": target, "value": value, "met": bool(met)} for name, target, value, met in rows]


Check = tuple[str, str, str, bool]


def _kept_check(ours: Mapping[str, Any]) -> Check:
    kept = {name: share["value"] for name, share in ours["kept"].items()}
    words = ", ".join(f"{name} {points(value)}%" for name, value in kept.items())
    return (
        f"What {ours['label']} keeps of each skill until the end",
        f"≥ {percent(KEPT_SHARE)} of its accuracy at the end of its own stage",
        words,
        all(value is not None and value >= KEPT_SHARE for value in kept.values()),
    )


def _average_check(ours: Mapping[str, Any], theirs: Mapping[str, Any], pair: Mapping[str, Any]) -> Check:
    mine, other, more = ours["average"]["value"], theirs["average"]["value"], pair["average"]
    return (
        f"{ours['label']}'s average accuracy after the last stage",
        f"above {theirs['label']}'s {points(other)}%",
        f"{points(mine)}%: {points(more['value'], True)} ({points(more['low'])} to {points(more['high'])})",
        mine > other,
    )


def _part_check(
    what: str,
    rows: tuple[Any, Any],
    values: Sequence[float],
    words: Sequence[str],
    unit: str,
    found: Mapping[str, Any] | None,
) -> Check:
    """Whether SDFT's share of SFT's loss is small; there is no share of nothing."""
    (ours, theirs), met = (row["label"] for row in rows), values[0] <= FORGOTTEN_RATIO * max(0.0, values[1])
    name, target = f"{ours}'s {what}, as a part of {theirs}'s", f"≤ {percent(FORGOTTEN_RATIO)}"
    if found is None:
        return name, target, f"{theirs} lost nothing ({words[1]} {unit}), {ours} {words[0]}", met
    return name, target, f"{points(found['value'])}%: {words[0]} of {words[1]} {unit}", met
