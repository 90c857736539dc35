"""What becomes of a version once the gate has spoken: policy, overrides, and letting one in by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from selftaught.continual.workspace import Workspace
from selftaught.errors import ConfigError
from selftaught.ledger.records import Version

Status = Literal["promoted", "rejected", "inconclusive"]


def check_override(override: Sequence[str], reason: str) -> None:
    """An override needs a reason, and a reason an override.

    Raises:
        ConfigError: one is there without the other.
    """
    if override and not reason.strip():
        raise ConfigError("--override: give a --reason too; it is recorded")
    if reason.strip() and not override:
        raise ConfigError("--reason: name what it excuses with --override")


def decide(
    verdict: Mapping[str, Any], on_inconclusive: str, override: Sequence[str] = (), reason: str = ""
) -> tuple[Status, str]:
    """What becomes of a version, and why.

    Args:
        verdict: the gate's.
        on_inconclusive: "hold", "promote" or "reject".
        override: names of checks whose failure is excused.
        reason: why they are.
    """
    failed = failed_checks(verdict)
    excused = sorted(failed.keys() & set(override))
    against = [outcome for name, outcome in failed.items() if name not in excused]
    status: Status = verdict["outcome"]
    why = f"{verdict['sentence']}"
    if excused:
        why = f"overridden for {', '.join(excused)}: {reason}; the gate said {why}"
        decided = any(outcome != "undecided" for outcome in against)
        status = "rejected" if decided else "inconclusive" if against else "promoted"
    if status != "inconclusive" or on_inconclusive == "hold":
        return status, why
    return "promoted" if on_inconclusive == "promote" else "rejected", f"{why} (on_inconclusive = {on_inconclusive})"


def failed_checks(verdict: Mapping[str, Any]) -> dict[str, str]:
    """The checks that a version did not pass, and how."""
    return {one["name"]: one["outcome"] for one in verdict["checks"] if one["outcome"] not in ("improved", "kept")}


def promote(workspace: Workspace, name: str, override: Sequence[str], reason: str) -> Version:
    """Lets a version in that the gate held or rejected, by name and with a reason; or one again that was rolled back.

    Args:
        workspace: where.
        name: of the version.
        override: names of all checks that it failed.
        reason: why they are excused; recorded.

    Raises:
        ConfigError: it is promoted already, a failed check is not named, or HEAD is no longer its parent.
        ArtifactError: its weights are gone or damaged.
    """
    check_override(override, reason)
    with workspace.writing():
        version = workspace.ledger.version(name)
        verdict = workspace.ledger.verdict(version)
        status = workspace.ledger.status(version)
        if verdict is None or status not in ("rejected", "inconclusive", "rolled back"):
            what = "the base" if verdict is None else status
            raise ConfigError(f"{version.name}: is {what}, so there is nothing to promote")
        known = [check["name"] for check in verdict["checks"]]
        for one in override:
            if one not in known:
                raise ConfigError(
                    f"--override: {one} was no check of {version.name}; its checks were {', '.join(known)}"
                )
        why = "promoted again after it was rolled back"
        if status != "rolled back":
            decided, why = decide(verdict, "hold", override, reason)
            missing = {one: outcome for one, outcome in failed_checks(verdict).items() if one not in override}
            if decided != "promoted":
                words = ", ".join(f"{one} ({outcome})" for one, outcome in missing.items())
                raise ConfigError(f"{version.name}: did not pass {words}; name each that you excuse with --override")
        workspace.model_folder(version)
        workspace.ledger.promote(version, why)
    return version
