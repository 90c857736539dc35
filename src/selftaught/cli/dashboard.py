"""The command that shows the page."""

from __future__ import annotations

from typing import Annotated

import typer

from selftaught.cli.options import HERE, InWorkspace


def dashboard(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    workspace: InWorkspace = HERE,
) -> None:
    """Show a workspace as a page in your browser: versions, skills, what was kept, the lesson under way, feedback.

    Only this machine can see it. Ctrl-C ends it.
    """
    _check_installed()
    from selftaught.continual.workspace import Workspace
    from selftaught.serve.page.dashboard import has_server, listen, server

    opened = Workspace.open(workspace)
    sock = listen(port)
    print(f"http://127.0.0.1:{sock.getsockname()[1]}/ shows {opened.root.resolve()}; Ctrl-C ends it.", flush=True)
    if not has_server():
        print("Two versions cannot answer side by side: this selftaught has no server.", flush=True)
    server(opened).run(sockets=[sock])


def _check_installed() -> None:
    """Raises:
    ConfigError: what a server needs is not installed.
    """
    from importlib.util import find_spec

    from selftaught.errors import ConfigError

    missing = [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"dashboard: needs {' and '.join(missing)}; install them: pip install 'selftaught[serve]'")
