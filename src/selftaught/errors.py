"""Every error that selftaught raises on purpose.

::

    SelftaughtError
    ├── DataError      (ValueError)    a data file or a row in it is not usable
    ├── ConfigError    (ValueError)    a recipe, an option or an override is not usable
    ├── ModelError     (RuntimeError)  a model cannot be found, fetched, read or taught
    ├── TrainingError  (RuntimeError)  training cannot go on (for example a non-finite loss)
    └── ArtifactError  (OSError)       a file cannot be written or is damaged

The message of each says what is wrong, where, and how to mend it, in one line: the command line
prints just that and exits with code 2.
"""

from __future__ import annotations

GO_ON = "run the same command with --resume to go on (a lesson in a workspace: without)"  # whatever has ended it


class SelftaughtError(Exception):
    """Root of all errors that a user can mend."""


class DataError(SelftaughtError, ValueError):
    """A data file, or a row in it, is not usable."""


class ConfigError(SelftaughtError, ValueError):
    """A recipe, an option or an override is not usable."""


class ModelError(SelftaughtError, RuntimeError):
    """A model cannot be found, fetched, read or taught."""


class TrainingError(SelftaughtError, RuntimeError):
    """Training cannot go on."""


class ArtifactError(SelftaughtError, OSError):
    """A file of ours cannot be written, or is damaged."""
