"""The page's routes: what they send, what they refuse, and what they change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_up
import pytest
from made_up import make, teach

pytest.importorskip("fastapi")

from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from served import page_app

from selftaught.continual.workspace import Workspace
from selftaught.interactions import Interaction
from selftaught.serve.app import create_app
from selftaught.serve.keys import Key, Keys
from selftaught.serve.page import page_router
from selftaught.serve.page.document import document
from selftaught.serve.settings import ServeSettings
from selftaught.types import Message

HERE = "http://127.0.0.1"
OWN = {"Origin": HERE}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    made_up.install(monkeypatch.setattr)
    made = make(tmp_path / "work", "a", "b")
    teach(made, "a", 1)
    store = made.interactions()
    store.keep(Interaction("chatcmpl-1", "2026-01-01T00:00:00Z", "local", "v1", (Message("user", "Hm?"),), "Ah."))
    for text in ("Oh.", "Uh."):
        store.add_feedback("chatcmpl-1", "local", "correction", text)
    store.close()
    return made


@pytest.fixture
def client(workspace: Workspace) -> Iterator[TestClient]:
    with TestClient(page_app(workspace.root), base_url=HERE, raise_server_exceptions=False) as made:
        yield made


def states(workspace: Workspace) -> list[str]:
    store = workspace.interactions()
    found = [said.state for said, _ in store.feedback()]
    store.close()
    return found


def test_the_page_is_one_document_that_may_load_nothing(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    text, policy = answer.text, answer.headers["content-security-policy"]
    assert "/* style */" not in text and "/* script */" not in text
    assert text.count("<script") == text.count("<style") == 1
    assert not re.search(r"""\s(src|srcset|onclick|style)=["']""", text.split("<script>")[0])
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_text_can_become_an_element() -> None:
    """The browser forbids it too (trusted types); what is never written needs no forbidding."""
    script = document()[0].partition("<script>")[2]
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "srcdoc", "new Function"):
        assert way not in script


def test_state_is_sent_anew_only_when_it_changed(client: TestClient, workspace: Workspace) -> None:
    first = client.get("/page/state")
    assert first.status_code == 200 and first.json()["head"] == "v1"
    tag = first.headers["etag"]
    again = client.get("/page/state", headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    workspace.roll_back("v0", "so")
    changed = client.get("/page/state", headers={"If-None-Match": f'"other", {tag}'})
    assert changed.status_code == 200 and changed.json()["head"] == "v0" and changed.headers["etag"] != tag


def test_flips_are_sent_by_version(client: TestClient) -> None:
    found = client.get("/page/flips/v1").json()
    assert [(one["suite"], one["gained"], one["lost"]) for one in found["suites"]] == [("a", 30, 0)]
    for name in ("v0", "v7", "..%2f..", "v1%00"):
        answer = client.get(f"/page/flips/{name}")
        assert answer.status_code == 404, name


def test_feedback_is_decided_and_taken_back(client: TestClient, workspace: Workspace) -> None:
    for number, state in ((1, "approved"), (2, "rejected")):
        answer = client.post(f"/page/feedback/{number}", json={"state": state}, headers=OWN)
        assert (answer.status_code, answer.json()) == (200, {"id": number, "state": state})
    assert states(workspace) == ["approved", "rejected"]
    client.post("/page/feedback/1", json={"state": "pending"}, headers=OWN)
    assert states(workspace) == ["pending", "rejected"]
    assert client.get("/page/state").json()["feedback"]["pending"] == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": f"{HERE}:1"},
        {"Origin": f"{HERE}.elsewhere.example"},
    ],
)
def test_another_page_changes_nothing(headers: dict[str, str], client: TestClient, workspace: Workspace) -> None:
    answer = client.post("/page/feedback/1", json={"state": "approved"}, headers=headers)
    assert answer.status_code == 403
    assert states(workspace) == ["pending", "pending"]


def test_a_name_that_was_made_to_point_here_is_refused(client: TestClient) -> None:
    """Else its page would be of the same origin, as browsers see it."""
    foreign = {"Host": "elsewhere.example", "Origin": "http://elsewhere.example"}
    assert client.get("/page/state", headers=foreign).status_code == 400
    assert client.post("/page/feedback/1", json={"state": "approved"}, headers=foreign).status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/page/feedback/99", {"state": "approved"}, 404),
        ("/page/feedback/1", {"state": "learned"}, 422),
        ("/page/feedback/1", {}, 422),
        ("/page/feedback/x", {"state": "approved"}, 422),
        ("/page/feedback/99999999999999999999999", {"state": "approved"}, 422),
        ("/page/feedback/-1", {"state": "approved"}, 422),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    path: str, body: dict[str, Any], status: int, client: TestClient, workspace: Workspace
) -> None:
    assert client.post(path, json=body, headers=OWN).status_code == status
    assert states(workspace) == ["pending", "pending"]


def test_what_was_learned_stays_learned(client: TestClient, workspace: Workspace) -> None:
    store = workspace.interactions()
    store.set_state([1], "learned")
    store.close()
    assert client.post("/page/feedback/1", json={"state": "rejected"}, headers=OWN).status_code == 409
    assert states(workspace) == ["learned", "pending"]


def test_nothing_kept_is_no_feedback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.install(monkeypatch.setattr)
    workspace = make(tmp_path / "bare", "a")
    with TestClient(page_app(workspace.root), base_url=HERE) as client:
        assert client.get("/page/state").json()["feedback"] is None
        assert client.post("/page/feedback/1", json={"state": "approved"}, headers=OWN).status_code == 404
    assert not (workspace.root / ".selftaught" / "interactions.db").exists(), "looking makes nothing"


def test_who_may_not_see_it_sees_the_bare_page_only(workspace: Workspace) -> None:
    def allowed() -> None:
        raise HTTPException(401, "a key is needed")

    app = FastAPI()
    app.include_router(page_router(workspace.root, allowed))
    with TestClient(app, base_url=HERE) as client:
        assert client.get("/").status_code == 200
        for path in ("/page/state", "/page/flips/v1"):
            assert client.get(path).status_code == 401
        assert client.post("/page/feedback/1", json={"state": "approved"}, headers=OWN).status_code == 401
    assert states(workspace) == ["pending", "pending"]


def test_where_there_are_keys_only_an_operators_sees_and_decides(workspace: Workspace) -> None:
    keys = Keys.of_workspace(workspace.root)
    secrets = {name: keys.add(Key(name, operator=name == "boss")) for name in ("boss", "app")}
    app = create_app(workspace.root, ServeSettings(preload=False))
    with TestClient(app, base_url=HERE) as client:
        for name, expected in (("nobody", 401), ("app", 403), ("boss", 200)):
            told = {**OWN, "Authorization": f"Bearer {secrets.get(name)}"}
            assert client.get("/page/state", headers=told).status_code == expected
            assert client.get("/page/flips/v1", headers=told).status_code == expected
            decided = client.post("/page/feedback/1", json={"state": "approved"}, headers=told)
            assert decided.status_code == expected
            assert states(workspace)[0] == ("approved" if name == "boss" else "pending")


def test_a_damaged_workspace_is_told_in_one_line(client: TestClient, workspace: Workspace) -> None:
    workspace.ledger.close()  # else its log still holds everything
    workspace.ledger.path.write_bytes(b"no ledger at all, " * 100)
    answer = client.get("/page/state")
    assert answer.status_code == 503 and "ledger" in answer.json()["detail"]
