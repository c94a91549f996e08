"""Property tests here have no time limit per example: the machine may be busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("wire", deadline=None)
settings.load_profile("wire")
