"""What is kept is there after anything, and what is deleted is nowhere."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from selftaught.errors import ArtifactError, DataError
from selftaught.interactions import Interaction, Interactions
from selftaught.interactions.store import days_from_now
from selftaught.types import Message

ASKED = (Message("user", "Who repairs the lamps?"),)


def one(name: str = "chatcmpl-1", key: str = "shop", **changes: object) -> Interaction:
    values = {"created": "2026-01-01T00:00:00Z", "version": "v3", "messages": ASKED, "completion": "The baker does."}
    return Interaction(**{"id": name, "key": key, **values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Interactions:
    return Interactions(tmp_path / "interactions.db")


def test_what_is_kept_is_given_back(store: Interactions) -> None:
    store.keep_all(
        [one(), one("chatcmpl-2", messages=(Message("system", " é\n"), *ASKED), expires="2027-01-01T00:00:00Z")]
    )
    assert store.interaction("chatcmpl-1") == one()
    found = store.interaction("chatcmpl-2")
    assert found is not None and found.messages[0].content == " é\n" and found.expires == "2027-01-01T00:00:00Z"
    assert store.interaction("chatcmpl-3") is None
    assert [kept.id for kept in store.interactions("shop")] == ["chatcmpl-1", "chatcmpl-2"]
    assert list(store.interactions("other")) == []
    with pytest.raises(DataError, match="kept already"):
        store.keep_all([one("chatcmpl-9"), one()])
    assert store.interaction("chatcmpl-9") is None, "all or none"


def test_feedback_is_of_whoever_asked(store: Interactions) -> None:
    store.keep(one())
    noted = store.add_feedback("chatcmpl-1", "shop", "correction", "Odile does.")
    assert (noted.state, noted.text, noted.kind) == ("pending", "Odile does.", "correction")
    store.add_feedback("chatcmpl-1", "shop", "up")
    assert [(f.id, about.id) for f, about in store.feedback()] == [(1, "chatcmpl-1"), (2, "chatcmpl-1")]
    for name, key in (("chatcmpl-1", "thief"), ("chatcmpl-2", "shop")):
        with pytest.raises(DataError, match="no answer that was kept for this key"):
            store.add_feedback(name, key, "up")
    for kind in ("correction", "text"):
        with pytest.raises(DataError, match="needs one"):
            store.add_feedback("chatcmpl-1", "shop", kind, " \n")  # type: ignore[arg-type]
    assert len(store.feedback()) == 2
    assert store.feedback_since("shop", days_from_now(-1)) == 2
    assert store.feedback_since("shop", days_from_now(1)) == 0


def test_a_conversation_that_goes_on_is_feedback_once(store: Interactions) -> None:
    store.keep(one(completion=" The baker does.\n"))
    said = [*ASKED, Message("assistant", "The baker does."), Message("user", "No, Odile does.")]
    assert store.follow_up("other", said) is None
    assert store.follow_up("shop", said[:1]) is None
    assert store.follow_up("shop", [*ASKED, Message("assistant", "Another."), said[2]]) is None
    noted = store.follow_up("shop", said)
    assert noted is not None and (noted.kind, noted.text) == ("follow_up", "No, Odile does.")
    assert store.follow_up("shop", said) is None, "asked again, perhaps after an error"


def test_states_change_and_what_was_learned_stays_so(store: Interactions) -> None:
    store.keep(one())
    for _ in range(3):
        store.add_feedback("chatcmpl-1", "shop", "up")
    store.set_state([1, 2], "approved")
    store.set_state([2], "learned")
    store.set_state([1, 2], "rejected")
    assert [f.state for f, _ in store.feedback()] == ["rejected", "learned", "pending"]
    assert [f.id for f, _ in store.feedback("pending")] == [3]
    with pytest.raises(DataError, match="none of that number"):
        store.set_state([3, 77], "approved")
    assert [f.id for f, _ in store.feedback("pending")] == [3], "all or none"


def test_what_is_purged_is_gone_from_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "interactions.db"
    store = Interactions(path)
    secret = "the-secret-of-Velsing"
    store.keep(one(completion=secret))
    store.add_feedback("chatcmpl-1", "shop", "text", secret)
    store.keep_all([one(f"chatcmpl-{n}", "other", created="2026-02-01T00:00:00Z") for n in range(2, 9)])
    files = list(tmp_path.iterdir())
    assert any(secret.encode() in file.read_bytes() for file in files)
    with pytest.raises(DataError, match="say which"):
        store.purge()
    assert store.purge(key="shop") == 1
    assert not any(secret.encode() in file.read_bytes() for file in tmp_path.iterdir())
    assert store.feedback() == []
    assert store.purge(older_than="2026-01-31T00:00:00Z") == 0
    assert store.purge(older_than="2026-02-02T00:00:00Z", key="other") == 7
    store.keep(one())
    assert store.purge(everything=True) == 1


def test_what_is_past_its_time_goes(store: Interactions) -> None:
    store.keep_all([one(), one("chatcmpl-2", expires=days_from_now(-0.1)), one("chatcmpl-3", expires=days_from_now(1))])
    assert store.expire() == 1
    assert [kept.id for kept in store.interactions()] == ["chatcmpl-1", "chatcmpl-3"]


def test_texts_are_redacted_before_they_are_kept(tmp_path: Path) -> None:
    store = Interactions(tmp_path / "i.db", lambda text: text.replace("Odile", "[name]"))
    store.keep(one(messages=(Message("user", "Is Odile there?"),), completion="Odile is."))
    said = [Message("user", "Is Odile there?"), Message("assistant", "Odile is."), Message("user", "Odile who?")]
    noted = store.follow_up("shop", said)
    assert noted is not None and noted.text == "[name] who?", "the conversation is known by what was really said"
    found = store.interaction("chatcmpl-1")
    assert found is not None and (found.messages[0].content, found.completion) == ("Is [name] there?", "[name] is.")
    assert not any(b"Odile" in file.read_bytes() for file in tmp_path.iterdir())


def _writes_until_killed(path: Path, ready: Path) -> None:
    store, n = Interactions(path), 0
    while True:
        n += 1
        store.keep(one(f"chatcmpl-{n}"))
        store.add_feedback(f"chatcmpl-{n}", "shop", "up")
        with ready.open("a", encoding="utf-8") as file:
            file.write(f"{n}\n")


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path, ready = tmp_path / "i.db", tmp_path / "acknowledged"
    process = multiprocessing.get_context("fork").Process(target=_writes_until_killed, args=(path, ready))
    process.start()
    while not ready.is_file() or len(ready.read_text().splitlines()) < 20:
        assert process.is_alive()
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    acknowledged = int(ready.read_text().split()[-1])
    found = [about.id for _, about in Interactions(path).feedback()]
    assert found[:acknowledged] == [f"chatcmpl-{n}" for n in range(1, acknowledged + 1)]
    assert len(found) <= acknowledged + 1


def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "i.db"
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 40)
    with pytest.raises(ArtifactError, match="cannot be used"):
        Interactions(path)
    Interactions(tmp_path / "j.db")._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ArtifactError, match="newer selftaught"):
        Interactions(tmp_path / "j.db")
