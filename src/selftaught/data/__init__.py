"""Data: files and hub data sets read into examples, with errors that name the row."""

from selftaught.data.formats import load_examples
from selftaught.data.validate import data_hash

__all__ = ["data_hash", "load_examples"]
