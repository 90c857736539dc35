"""Serves a workspace's versions over an OpenAI-compatible HTTP interface."""
