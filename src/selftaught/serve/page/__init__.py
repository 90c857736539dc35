"""The page: what a workspace's model has learned and lost, for a person who looks."""

from selftaught.serve.page.routes import page_router

__all__ = ["page_router"]
