"""Teach a model skill after skill, and measure each time what was gained and what was forgotten."""

from selftaught.continual.jobs import Event, Job, Suite, Watch, probe_suites, run_jobs
from selftaught.continual.learn import learn, run_folder

__all__ = ["Event", "Job", "Suite", "Watch", "learn", "probe_suites", "run_folder", "run_jobs"]
