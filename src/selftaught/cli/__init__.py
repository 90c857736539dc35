"""The command line. Heavy imports are inside the commands, so that --help is instant."""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

from selftaught.distributed import assist, finish, launched
from selftaught.errors import GO_ON, SelftaughtError

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it


def main() -> None:
    """Entry point: errors that a user can mend become one line and exit code 2.

    Of processes that torchrun has started, the first alone does what the words say, and the others assist it.
    """
    if not launched():
        _main()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else torch shows its stack where the others are gone
    if os.environ["RANK"] != "0":
        sys.exit(assist())
    code: int | str | None = 1
    try:
        _main()
    except SystemExit as stop:
        code = stop.code
        raise
    except BaseException:  # what follows may leave at once
        traceback.print_exc()
        sys.exit(code)
    finally:
        finish(code if isinstance(code, int) else int(code is not None))


def _main() -> NoReturn:
    from selftaught.cli.app import app

    try:
        app(standalone_mode=True)
        sys.exit()
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
