"""A server for a workspace: an interface that programs know, and a page for people."""
