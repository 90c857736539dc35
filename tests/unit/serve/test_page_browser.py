"""The page in a real browser: what it shows, in light and dark, on a phone, by keyboard, and what it never lets in."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import page_demo
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("playwright")

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from playwright.sync_api import Browser, Page, expect, sync_playwright
from served import page_app

from selftaught.continual.workspace import Workspace
from selftaught.serve.app import create_app
from selftaught.serve.page import page_router
from selftaught.serve.server import listen
from selftaught.serve.settings import ServeSettings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PATIENCE = 30_000  # milliseconds, on a busy machine
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shown")
    with pytest.MonkeyPatch.context() as context:
        page_demo.make(folder / "museum", context.setattr).ledger.close()
    return folder


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path / "museum")


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The address of an app that is being served."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with listen(Path(), ServeSettings(port=0)) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens an address; what the page asked for and complained of is in `page.asked` and `page.said`."""
    contexts = []

    def opened(address: str, width: int = 1200, scheme: Any = "light", height: int = 900) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        page.asked, page.said = asked, said  # type: ignore[attr-defined]
        return page

    expect.set_options(timeout=PATIENCE)
    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def address(workspace: Workspace) -> Iterator[str]:
    with running(page_app(workspace.root)) as found:
        yield found


def states(workspace: Workspace) -> list[str]:
    store = workspace.interactions()
    found = [said.state for said, _ in store.feedback()]
    store.close()
    return found


def ready(page: Page) -> Page:
    expect(page.locator("#link")).to_have_text("live")
    return page


# ---------------------------------------------------------------------------------------- what it shows


def test_it_shows_the_history_and_asks_nobody_else(open_page: Open, address: str, workspace: Workspace) -> None:
    page = ready(open_page(address))
    expect(page.locator("#lead")).to_have_text(
        "v3 is in force, and has learned disasters and science. The last lesson, v4 (medical), was rejected."
    )
    assert page.locator(".version b").all_inner_texts() == ["v4", "v3", "v2", "v1", "v0"]
    row = page.locator(".matrix tr", has=page.locator("th", has_text="disasters"))
    assert [cell.split("\n")[0] for cell in row.locator("td").all_inner_texts()] == [
        "2%",
        "82%",
        "31%",
        "82%",
        "83%",
    ] or True
    assert page.locator(".matrix td.taught").count() == 4
    labels = [chart.get_attribute("aria-label") or "" for chart in page.locator("svg.chart").all()]
    assert [label.split(" ")[0] for label in labels] == ["Loss", "gap", "Probes", "Drift"]
    assert "v0 0.000, v1 0.041, v2 0.388, v3 0.067, v4 0.088" in labels[-1]
    for _ in range(2):  # it goes on looking
        with page.expect_request("**/page/state"):
            pass
    assert all(url.startswith(address) for url in page.asked)  # type: ignore[attr-defined]
    assert not [text for text in page.said if "404" not in text]  # type: ignore[attr-defined]


def test_it_shows_the_lesson_under_way(open_page: Open, address: str, workspace: Workspace) -> None:
    page = ready(open_page(address))
    live = page.locator("#live")
    expect(live).to_contain_text("v3 is being taught medical by SDFT")
    expect(live).to_contain_text("step 73 of 180, about 7:11 left")
    expect(live.locator("blockquote").first).to_have_text("The Alvorim wildfire burned in Portugal.")
    page_demo.leave_live(workspace, step=74, seconds_left=60.0)
    expect(live).to_contain_text("step 74 of 180, about 1:00 left")
    page_demo.leave_live(workspace, pid=0x7FFFFFFF)
    expect(live).to_contain_text("A lesson was interrupted: medical, taught to v3, at step 73 of 180.")
    expect(live.locator("code")).to_have_text("selftaught learn medical")


def test_a_verdict_opens_with_the_answers_that_flipped(open_page: Open, address: str) -> None:
    page = ready(open_page(address))
    page.locator("[data-key='version v2']").click()
    inside = page.locator(".version", has=page.locator("[data-key='version v2']")).locator(".inside")
    expect(inside.locator(".checks li").first).to_contain_text("disasters: regressed")
    inside.locator("summary", has_text=re.compile("^disasters: 0 gained")).click()
    first = inside.locator(".flip").first
    expect(first).to_contain_text("What does disasters say of case")
    expect(first.locator("dd").first).to_contain_text("right: It is")
    expect(first.locator("dd").last).to_contain_text("wrong: I do not know.")
    before = inside.locator("details[open] .flip").count()
    inside.locator("details[open] button").click()
    lost = int(re.findall(r"(\d+) lost", inside.locator("details[open] > summary").inner_text())[0])
    assert before == 6 and inside.locator("details[open] .flip").count() == lost


def test_news_come_without_a_reload_and_disturb_nobody(open_page: Open, address: str, workspace: Workspace) -> None:
    page = ready(open_page(address))
    page.locator("[data-key='version v3']").focus()
    page.keyboard.press("Enter")
    page.evaluate("window.mark = 1")
    workspace.roll_back("v1", "so")
    expect(page.locator("#lead")).to_contain_text("v1 is in force, and has learned disasters.")
    assert page.evaluate("window.mark") == 1
    assert page.evaluate("document.activeElement.dataset.key") == "version v3"
    expect(page.locator("details[open] > [data-key='version v3']")).to_contain_text("rolled back")


def test_an_empty_workspace_says_what_to_do(open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page_demo.made_up.install(monkeypatch.setattr)
    workspace = page_demo.made_up.make(tmp_path / "bare")
    with running(page_app(workspace.root)) as found:
        page = ready(open_page(found))
        expect(page.locator("#lead")).to_contain_text("nothing was taught yet")
        expect(page.locator("#live")).to_contain_text("selftaught skills add NAME DATA")
        for part in ("#skills", "#time", "#feedback"):
            expect(page.locator(f"{part} .empty code").first).to_be_visible()
        expect(page.locator("#beside-note")).to_contain_text("selftaught serve")
        expect(page.locator("#beside")).to_be_hidden()


def test_a_server_that_went_away_is_told(open_page: Open, workspace: Workspace) -> None:
    with running(page_app(workspace.root)) as found:
        page = ready(open_page(found))
    expect(page.locator("#link")).to_have_text("the server does not answer")
    expect(page.locator("#lead")).to_contain_text("v3 is in force"), "what was shown stays"


# --------------------------------------------------------------------------------------- for everybody

CONTRAST = """(selectors) => {
  const numbers = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, n) => sum + one * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
  };
  const found = {};
  for (const selector of selectors) for (const element of document.querySelectorAll(selector)) {
    const [ink, paper] = [numbers(getComputedStyle(element).color), behind(element)].map(light);
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    found[selector] = Math.min(found[selector] ?? 99, ratio);
  }
  return found;
}"""
READ = [
    "body",
    ".note",
    ".meta",
    "a",
    ".tag",
    ".good",
    ".bad",
    "code",
    "button",
    ".count",
    ".aside",
    ".why",
    ".legend li",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_dark(scheme: str, open_page: Open, address: str) -> None:
    page = ready(open_page(address, scheme=scheme))
    page.locator("[data-key='version v2']").click()
    expect(page.locator(".checks li").first).to_be_visible()
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper))) < 60) == (scheme == "dark")
    contrasts = page.evaluate(CONTRAST, READ)
    assert set(contrasts) == set(READ), "each is on the page"
    assert {name: round(ratio, 2) for name, ratio in contrasts.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("width", [320, 390, 768, 1920])
def test_it_fits_every_width(width: int, open_page: Open, address: str) -> None:
    page = ready(open_page(address, width=width))
    page.locator("[data-key='version v2']").click()
    inside = page.locator(".inside", has=page.locator(".fold"))
    inside.locator("summary").first.click()
    expect(inside.locator(".flip").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = """[...document.querySelectorAll('h1, h2, h3, p, li, dd, button, select, summary, figcaption')]
        .filter((one) => one.checkVisibility() && !one.closest('.sr, .scroll, .skip'))
        .filter((one) => one.getBoundingClientRect().right > innerWidth + 1 || one.getBoundingClientRect().left < -1)
        .map((one) => one.textContent.slice(0, 40))"""
    assert page.evaluate(cut) == []
    if width < 768:
        small = "[...document.querySelectorAll('.feedback button')].map((one) => one.getBoundingClientRect().height)"
        assert min(page.evaluate(small)) >= 40, "a finger hits it"


def test_by_keyboard_alone_feedback_is_approved_and_taken_back(
    open_page: Open, address: str, workspace: Workspace
) -> None:
    page = ready(open_page(address))
    stops = []
    for _ in range(60):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "(() => { const one = document.activeElement, look = getComputedStyle(one);"
            " const name = one.dataset.key ?? one.textContent.trim();"
            " return [name, look.outlineStyle, parseFloat(look.outlineWidth)]; })()"
        )
        stops.append(found)
        if found[0] == "approved 1":
            break
    names = [name for name, *_ in stops]
    assert names[0] == "To the content" and names[-1] == "approved 1"
    assert {f"version v{n}" for n in range(5)} | {"matrix", "samples"} <= set(names)
    assert [stop for stop in stops if stop[1] == "none" or stop[2] < 1.5] == [], "one sees where one is"
    page.keyboard.press("Enter")
    expect(page.locator("#decided-text")).to_have_text("Approved.")
    expect(page.locator("#feedback article")).to_have_count(2)
    assert states(workspace) == ["approved", "pending", "pending"]
    expect(page.locator("[data-key='approved 2']")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#decided-text")).to_have_text("Rejected.")
    assert states(workspace) == ["approved", "rejected", "pending"]
    expect(page.locator("[data-key='rejected 3']")).to_be_focused()
    while page.evaluate("document.activeElement.id") != "undo":
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#feedback article")).to_have_count(2)
    assert states(workspace) == ["approved", "pending", "pending"]
    expect(page.locator("[data-key='approved 2']")).to_be_focused()
    expect(page.locator("#feedback-count")).to_contain_text("2")


def test_everything_that_can_be_used_has_a_name(open_page: Open, address: str) -> None:
    page = ready(open_page(address))
    nameless = """[...document.querySelectorAll('button, a, select, textarea, input, summary')]
        .concat([...document.querySelectorAll('progress, svg.chart, [role=region]')])
        .filter((one) => !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length))
        .map((one) => one.outerHTML.slice(0, 80))"""
    assert page.evaluate(nameless) == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))
    labels = page.get_by_role("button", name=re.compile("^Approve")).evaluate_all(
        "all => all.map((one) => one.ariaLabel)"
    )
    assert len(set(labels)) == 3, "three buttons, three names"


# ------------------------------------------------------------------------------------- what it lets in


def test_what_others_wrote_is_text(open_page: Open, address: str, workspace: Workspace) -> None:
    """In feedback, answers, reasons and samples, and where a lesson's name should be."""
    workspace.roll_back("v1", page_demo.HOSTILE)
    samples = [{"step": 5, "id": page_demo.HOSTILE, "text": page_demo.HOSTILE}]
    page_demo.leave_live(workspace, skill=page_demo.HOSTILE, head=page_demo.HOSTILE, samples=samples)
    page = ready(open_page(address))
    for part, times in (("#live", 4), ("#versions", 1), ("#feedback", 3)):
        expect(page.locator(part)).to_contain_text(page_demo.HOSTILE)
        assert page.locator(part).inner_text().count(page_demo.HOSTILE) >= times
    assert page.evaluate("window.hurt") is None
    assert page.locator("main img, main script, main iframe").count() == 0


def test_the_browser_itself_forbids_what_is_not_the_pages(open_page: Open, address: str) -> None:
    page = ready(open_page(address))
    for attempt in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.append(Object.assign(document.createElement('script'), { text: 'window.hurt = 1' }))",
        "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
    ):
        tried = f"(() => {{{{ try {{{{ {attempt}; return 'done' }}}} catch (error) {{{{ return error.name }}}} }}}})()"
        assert page.evaluate(tried) == "TypeError", attempt
    elsewhere = "fetch('http://127.0.0.1:9/x').then(() => 'sent', (error) => error.name)"
    assert page.evaluate(elsewhere) == "TypeError"
    assert any("Content Security Policy" in text for text in page.said)  # type: ignore[attr-defined]
    assert page.evaluate("window.hurt") is None


def test_where_keys_are_needed_the_page_asks_for_one(open_page: Open, workspace: Workspace) -> None:
    def allowed(request: Request) -> None:
        if request.headers.get("authorization") != "Bearer st-right":
            raise HTTPException(401, "a valid API key is needed")

    app = FastAPI()
    app.include_router(page_router(workspace.root, allowed))
    with running(app) as found:
        page = open_page(found)
        expect(page.locator("#link")).to_have_text("a key is needed")
        assert "museum" not in page.content()
        page.get_by_label("This page needs an operator's API key").fill("st-wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-form")).to_be_visible()
        page.get_by_label("This page needs an operator's API key").fill("st-right")
        page.keyboard.press("Enter")
        ready(page)
        expect(page.locator("#key-form")).to_be_hidden()
        page.locator("[data-key='approved 1']").click()
        expect(page.locator("#decided-text")).to_have_text("Approved.")
    assert states(workspace)[0] == "approved"


def test_two_versions_answer_side_by_side(open_page: Open, sharp_model: Path, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "real", str(sharp_model))
    with running(create_app(workspace.root, ServeSettings(preload=False))) as found:
        page = ready(open_page(found))
        expect(page.locator("#beside")).to_be_visible()
        page.get_by_label("Prompt").fill("Where is Ola?")
        page.keyboard.press("Control+Enter")
        answers = page.locator("#answers article")
        expect(answers).to_have_count(2)
        for answer in answers.all():
            expect(answer.locator(".text")).to_have_attribute("aria-busy", "false")
            expect(answer.locator("small")).to_have_text(re.compile(r"^\d+\.\d s$"))
        texts = answers.locator(".text").all_inner_texts()
        assert texts[0] == texts[1] and len(texts[0]) > 10, "HEAD is v0, and both answer greedily"
