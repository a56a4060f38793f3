"""What is collected here depends on whether Triton is installed."""

from __future__ import annotations

from importlib.util import find_spec

# Even to look into that folder for tests imports Triton.
collect_ignore = [] if find_spec("triton") else ["interpreted"]
