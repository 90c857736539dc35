"""Reading documents costs nothing until a document is read."""

from __future__ import annotations

import subprocess
import sys


def test_the_libraries_are_loaded_by_the_readers_that_need_them() -> None:
    code = (
        "import sys, selftaught.data.documents; "
        "print(sorted({'pypdf', 'docx', 'lxml', 'bs4', 'charset_normalizer', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
