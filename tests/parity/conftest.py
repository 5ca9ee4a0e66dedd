"""What the random programs share."""

from __future__ import annotations

import asyncio
import sys

import pytest


@pytest.fixture(autouse=True)
def short_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debug mode takes most of its time to note where each thing was made."""
    monkeypatch.setattr(asyncio.constants, "DEBUG_STACK_DEPTH", 1)
    monkeypatch.setattr(sys, "tracebacklimit", 1, raising=False)
