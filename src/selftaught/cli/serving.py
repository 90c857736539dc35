"""Commands of the server: `serve` and `keys`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selftaught.cli.options import HERE, AsJson, InWorkspace, days, print_json

keys = typer.Typer(no_args_is_help=True, help="API keys of a workspace's server.")

Operator = Annotated[
    bool, typer.Option("--operator", help="It may see the page, and decide on what others' feedback teaches.")
]
Retention = Annotated[
    str | None, typer.Option(help="How long what is stored is kept: 30d, 12h. Left out: until it is purged.")
]


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than this machine's own needs keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    store: Annotated[
        bool, typer.Option("--store", help="Keep conversations, to learn from, of those who need no key.")
    ] = False,
    retention: Retention = None,
    cors: Annotated[
        list[str] | None, typer.Option(help="A web page's address that may call it: https://example.org")
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Completions drawn at once.")] = 64,
    max_waiting: Annotated[int, typer.Option(min=0, help="That wait beside them; more are told 429.")] = 256,
    cache_tokens: Annotated[
        int, typer.Option(min=256, help="Keys and values in memory, in tokens of all completions and their prompts.")
    ] = 32768,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest completion where a request names no length.")] = 1024,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that an answer may take.")] = 300.0,
    loaded: Annotated[int, typer.Option(min=1, help="Versions in memory at once.")] = 2,
    workspace: InWorkspace = HERE,
) -> None:
    """Serve a workspace's versions over an OpenAI-compatible interface; HEAD by default, as it moves."""
    _needs_serve("serve")
    from selftaught.continual.workspace import Workspace
    from selftaught.serve.engine import Limits
    from selftaught.serve.server import listen
    from selftaught.serve.server import serve as run
    from selftaught.serve.settings import ServeSettings

    settings = ServeSettings(
        host=host,
        port=port,
        store=store,
        retention_days=None if retention is None else days(retention, "--retention"),
        origins=tuple(cors or ()),
        max_tokens=max_tokens,
        request_seconds=timeout,
        max_loaded=loaded,
        limits=Limits(max_rows, max_waiting, cache_tokens),
    )
    opened = Workspace.open(workspace)
    sock = listen(opened.root, settings)
    shown = f"[{host}]" if ":" in host else host
    address, head = f"http://{shown}:{sock.getsockname()[1]}", opened.ledger.head().name
    print(f"Serving {head} (HEAD) of {opened.root.resolve()} at {address}/v1", flush=True)
    print(f"A page shows it at {address}/ ; Ctrl-C ends it.", flush=True)
    run(opened.root, settings, sock)


def dashboard(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    workspace: InWorkspace = HERE,
) -> None:
    """Show a workspace as a page in your browser: versions, skills, what was kept, the lesson under way, feedback.

    Only this machine can see it. A model is loaded when the page asks one.
    """
    _needs_serve("dashboard")
    from selftaught.continual.workspace import Workspace
    from selftaught.serve.server import listen
    from selftaught.serve.server import serve as run
    from selftaught.serve.settings import ServeSettings

    settings = ServeSettings(port=port, preload=False)
    opened = Workspace.open(workspace)
    sock = listen(opened.root, settings)
    print(f"http://{settings.host}:{sock.getsockname()[1]}/ shows {opened.root.resolve()}; Ctrl-C ends it.", flush=True)
    run(opened.root, settings, sock)


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="Names the key in the records.")],
    store: Annotated[bool, typer.Option("--store", help="Keep its conversations, to learn from.")] = False,
    retention: Retention = None,
    rate: Annotated[int, typer.Option(min=1, help="Requests a minute.")] = 600,
    feedback: Annotated[int, typer.Option(min=0, help="Feedback a day.")] = 1000,
    operator: Operator = False,
    workspace: InWorkspace = HERE,
) -> None:
    """Make a key and print it, once: only its hash is kept. With the first key, everyone needs one."""
    from selftaught.serve.keys import Key

    key = Key(
        name,
        store=store,
        retention_days=None if retention is None else days(retention, "--retention"),
        requests_per_minute=rate,
        feedback_per_day=feedback,
        operator=operator,
    )
    print(_keys(workspace).add(key))


@keys.command("list")
def list_keys(workspace: InWorkspace = HERE, as_json: AsJson = False) -> None:
    """Show the keys that were made; none of them can be shown itself."""
    from dataclasses import asdict

    found = _keys(workspace).all()
    if as_json:
        print_json([asdict(key) for key in found])
        return
    for key in found:
        kept = "for good" if key.retention_days is None else f"for {key.retention_days:g} days"
        state = f"revoked {key.revoked}" if key.revoked else f"stores {kept}" if key.store else "stores nothing"
        role = "  operator" if key.operator else ""
        print(f"{key.name:<20} made {key.created}  {key.requests_per_minute} a minute  {state}{role}")
    if not found:
        print("no keys: everyone on this machine may ask; selftaught keys add NAME makes one")


@keys.command("revoke")
def revoke_key(name: Annotated[str, typer.Argument(help="Of the key.")], workspace: InWorkspace = HERE) -> None:
    """Refuse a key from now on; a server that runs heeds it at once."""
    _keys(workspace).revoke(name)
    print(f"{name} is revoked")


def _keys(workspace: Path) -> Any:
    from selftaught.continual.workspace import Workspace
    from selftaught.serve.keys import Keys

    return Keys.of_workspace(Workspace.open(workspace).root)


def _needs_serve(command: str) -> None:
    """Says how to install what the server needs.

    Args:
        command: what needs it.

    Raises:
        ConfigError: it is missing.
    """
    from importlib.util import find_spec

    from selftaught.errors import ConfigError

    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise ConfigError(f'{command}: needs {", ".join(missing)}; install them: pip install "selftaught[serve]"')
