"""The command line. Heavy imports are inside the commands, so that --help is instant."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from selftaught.errors import GO_ON, SelftaughtError

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it


def main() -> None:
    """Entry point: errors that a user can mend become one line and exit code 2."""
    from selftaught.cli.app import app

    try:
        app(standalone_mode=True)
    except SelftaughtError as error:
        if os.environ.get("SELFTAUGHT_DEBUG"):
            raise
        print(f"selftaught: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer has turned the interrupt into this
            _interrupted()
        raise


def _interrupted() -> NoReturn:
    resumable = {"quickstart", "learn", "sequential", "use", "ablate"} & set(sys.argv[1:])
    hint = f"; {GO_ON}" if resumable else ""
    print(f"selftaught: interrupted{hint}", file=sys.stderr)
    sys.exit(INTERRUPTED)
