"""The command line. Heavy imports are inside the commands, so that --help is instant."""

from __future__ import annotations

import os
import sys

from selftaught.errors import SelftaughtError


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
        print("\nselftaught: interrupted; run the same command with --resume to go on", file=sys.stderr)
        sys.exit(130)
