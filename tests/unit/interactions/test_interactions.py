"""What is kept from use: durable when the call returns, one key's own, gone for good when it is purged."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from selftaught.errors import ArtifactError, ConfigError, DataError
from selftaught.interactions import store
from selftaught.interactions.redaction import redactor
from selftaught.interactions.store import Feedback, Interaction, Interactions, utc
from selftaught.types import Message

HOUR = datetime.timedelta(hours=1)


def made(
    id: str = "c1", key: str = "anna", asked: str = "Where is Ola?", said: str = "In Rome.", **more: Any
) -> Interaction:
    values = {"created": utc(), "version": "v0", "messages": (Message("user", asked),), "completion": said, **more}
    return Interaction(id=id, key=key, **values)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Interactions]:
    found = Interactions(tmp_path / "interactions.db")
    yield found
    found.close()


def files_hold(path: Path, secret: str) -> bool:
    return any(secret.encode() in file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


# ------------------------------------------------------------------------------------- what is kept


def test_what_is_kept_is_what_is_found(kept: Interactions) -> None:
    turns = (Message("system", "Be brief."), Message("user", "Wo liegt “Köln”?\u2028\n"))
    one = made(messages=turns, completion="Am Rhein. ", expires=utc(HOUR))
    kept.keep_all([one, made("c2")])
    said = kept.add_feedback("c1", "anna", "correction", "In Köln.")
    for reader in (kept, Interactions(kept.path)):
        assert reader.interaction("c1") == one
        assert [found.id for found in reader.interactions()] == ["c1", "c2"]
        assert reader.feedback() == [(said, one)] == reader.feedback("pending")
        assert reader.feedback("approved") == []
    assert kept.interaction("c3") is None
    assert said == Feedback(1, said.created, "c1", "anna", "correction", "In Köln.", "pending")


def test_all_are_kept_or_none(kept: Interactions) -> None:
    kept.keep(made("c1"))
    with pytest.raises(DataError, match="of this id is kept already"):
        kept.keep_all([made("c2"), made("c1")])
    assert [one.id for one in kept.interactions()] == ["c1"]


@pytest.mark.parametrize(("kind", "text"), [("up", "good"), ("correction", " "), ("text", ""), ("praise", "x")])
def test_feedback_is_a_kind_with_what_it_needs(kind: str, text: str, kept: Interactions) -> None:
    kept.keep(made())
    with pytest.raises(DataError, match="feedback: "):
        kept.add_feedback("c1", "anna", kind, text)
    assert kept.feedback() == []


def test_nobody_speaks_of_anothers_completion(kept: Interactions) -> None:
    """And does not learn whether there is one."""
    kept.keep(made())
    words = []
    for id, key in (("c1", "bert"), ("c9", "bert")):
        with pytest.raises(DataError) as caught:
            kept.add_feedback(id, key, "down")
        words.append(str(caught.value).replace(id, "…"))
    assert words[0] == words[1]
    assert kept.follow_up("bert", [*made().messages, Message("assistant", "In Rome."), Message("user", "No!")]) is None


def test_the_next_message_is_feedback_once(kept: Interactions) -> None:
    kept.keep(made(said="In Rome.\n"))
    turns = [*made().messages, Message("assistant", "In Rome."), Message("user", "No, in Lima.")]
    said = kept.follow_up("anna", turns)
    assert said is not None
    assert (said.interaction, said.kind, said.text) == ("c1", "follow_up", "No, in Lima.")
    assert kept.follow_up("anna", turns) is None, "a client sent it again"
    for other in ([*turns[:1], Message("assistant", "In Oslo."), turns[-1]], turns[:1], turns[:2], []):
        assert kept.follow_up("anna", other) is None
    assert len(kept.feedback()) == 1


def test_states(kept: Interactions) -> None:
    kept.keep(made())
    first, second = (kept.add_feedback("c1", "anna", "text", text).id for text in ("Shorter.", "Longer."))
    kept.set_state([first], "approved")
    assert [said.state for said, _ in kept.feedback()] == ["approved", "pending"]
    with pytest.raises(DataError, match="feedback 9: there is none"):
        kept.set_state([second, 9], "rejected")
    with pytest.raises(DataError, match="unknown state 'done'"):
        kept.set_state([second], "done")
    assert [said.state for said, _ in kept.feedback()] == ["approved", "pending"]


def test_texts_that_no_file_can_hold_are_refused(kept: Interactions) -> None:
    kept.keep(made())
    with pytest.raises(DataError, match="half a character"):
        kept.add_feedback("c1", "anna", "text", "\ud800")
    with pytest.raises(DataError, match="half a character"):
        kept.keep(made("c2", said="\ud800"))


# --------------------------------------------------------------------------------------- durability


def _feed(path: Path, say: Connection) -> None:
    """Adds feedback for ever, and says which is acknowledged."""
    mine = Interactions(path)
    for number in range(10**6):
        mine.keep(made(f"c{number}"))
        said = mine.add_feedback(f"c{number}", "anna", "correction", f"answer {number}")
        say.send((said.id, said.text))


@pytest.mark.parametrize("count", [1, 7, 40])
def test_what_was_acknowledged_survives_kill_9(count: int, tmp_path: Path) -> None:
    path = tmp_path / "interactions.db"
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_feed, args=(path, theirs))
    process.start()
    theirs.close()
    acknowledged = [ours.recv() for _ in range(count)]
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while ours.poll():  # what it said before it died
        try:
            acknowledged.append(ours.recv())
        except EOFError:
            break
    found = {said.id: said.text for said, _ in Interactions(path).feedback()}
    assert dict(acknowledged).items() <= found.items()
    assert len(found) <= len(acknowledged) + 1
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_threads_share_it(kept: Interactions) -> None:
    kept.keep(made())

    def work(name: int) -> None:
        for number in range(10):
            kept.add_feedback("c1", "anna", "text", f"{name}/{number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {said.text for said, _ in kept.feedback()} == {
        f"{name}/{number}" for name in range(4) for number in range(10)
    }


# ----------------------------------------------------------------------------------------- forgetting

SECRET = "the-secret-of-anna"


def test_purged_is_gone_from_every_file(kept: Interactions) -> None:
    kept.keep_all([made(f"a{n}", asked=f"{SECRET} {n} " * 200, said=SECRET) for n in range(30)])
    kept.add_feedback("a3", "anna", "correction", SECRET)
    kept.keep(made("b1", key="bert"))
    reader = Interactions(kept.path)
    assert files_hold(kept.path, SECRET)
    assert kept.purge(key="anna") == 30
    assert not files_hold(kept.path, SECRET)
    assert [one.id for one in reader.interactions()] == ["b1"]
    assert kept.feedback() == []
    assert kept.purge(everything=True) == 1
    assert kept.interactions() == []


def test_expired_is_gone_from_every_file(kept: Interactions) -> None:
    kept.keep_all([made("old", said=SECRET, expires=utc(-HOUR)), made("new", expires=utc(HOUR)), made("kept")])
    kept.add_feedback("old", "anna", "text", SECRET)
    assert kept.expire() == 1
    assert not files_hold(kept.path, SECRET)
    assert [one.id for one in kept.interactions()] == ["new", "kept"]
    assert kept.expire() == 0


def test_purged_by_age_and_key(kept: Interactions) -> None:
    for key in ("anna", "bert"):
        kept.keep_all([made(f"{key}-old", key, created=utc(-2 * HOUR)), made(f"{key}-new", key)])
    assert kept.purge(key="anna", older_than=HOUR) == 1
    assert {one.id for one in kept.interactions()} == {"anna-new", "bert-old", "bert-new"}
    assert kept.purge(older_than=HOUR) == 1
    with pytest.raises(ConfigError, match="purge: say what"):
        kept.purge()
    assert len(kept.interactions()) == 2


def test_a_purge_that_could_not_clean_the_journal_says_so(kept: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep(made(said=SECRET))
    kept._connection.execute("PRAGMA busy_timeout = 50")
    reader = sqlite3.connect(kept.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM interactions").fetchall()
    with pytest.raises(ArtifactError, match="another process is reading"):
        kept.purge(everything=True)
    reader.close()
    assert kept.purge(everything=True) == 0
    assert not files_hold(kept.path, SECRET)


# ------------------------------------------------------------------------------------------ redaction


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Write to odile.m+x@lamps.example.org.", "Write to [email]."),
        ("Call +49 (0)30 123-4567 now", "Call [phone] now"),
        ("Call 555.123.4567, or 0301234567", "Call [phone], or [phone]"),
        ("In 2025, on 2025-11-26, 5400 hectares or 123,456", "In 2025, on 2025-11-26, 5400 hectares or 123,456"),
        ("a@b and v1.2.3.4.5.6.7", "a@b and v1.2.3.4.5.6.7"),
    ],
)
def test_redactions(text: str, left: str) -> None:
    assert redactor(["email", "phone"])(text) == left


def shout(text: str) -> str:
    return text.upper()


def test_all_texts_are_redacted_before_they_are_written(tmp_path: Path) -> None:
    kept = Interactions(tmp_path / "a.db", redactor(["email", f"{__name__}:shout"]))
    kept.keep(made(asked="I am a@b.org.", said="Hello a@b.org"))
    kept.add_feedback("c1", "anna", "text", "ask c@d.org")
    turns = [Message("user", "I am a@b.org."), Message("assistant", "Hello a@b.org"), Message("user", "e@f.org")]
    assert kept.follow_up("anna", turns) is not None, "what is hashed is redacted as well"
    assert kept.follow_up("anna", turns) is None
    (first, about), (second, _) = kept.feedback()
    assert (about.messages[0].content, about.completion) == ("I AM [EMAIL].", "HELLO [EMAIL]")
    assert (first.text, second.text) == ("ASK [EMAIL]", "[EMAIL]")
    assert not any(files_hold(kept.path, secret) for secret in ("a@b.org", "c@d.org", "e@f.org"))


@pytest.mark.parametrize("name", ["names", "no.such.module:f", "os:no_such", "math:sqrt"])
def test_a_redaction_that_cannot_be_used_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match=r"interactions\.redact: "):
        redactor([name])


# --------------------------------------------------------------------------------------------- the file


def test_a_newer_or_damaged_file_is_left_alone(kept: Interactions, tmp_path: Path) -> None:
    kept._connection.execute(f"PRAGMA user_version = {len(store.MIGRATIONS) + 1}")
    with pytest.raises(ArtifactError, match="the store of interactions has schema"):
        Interactions(kept.path)
    broken = tmp_path / "broken.db"
    broken.write_text("no database, but long enough to be taken for one" * 10)
    with pytest.raises(ArtifactError, match="the store of interactions cannot be used"):
        Interactions(broken)


def test_only_its_owner_may_read_it(kept: Interactions) -> None:
    kept.keep(made())
    assert {file.stat().st_mode & 0o777 for file in kept.path.parent.glob("interactions.db*")} == {0o600}
