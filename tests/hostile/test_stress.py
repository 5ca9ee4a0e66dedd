"""What `tools/run stress` does, in seconds: each scenario of tools/stress, scaled down, in a process of its own."""

from __future__ import annotations

import pytest
from stress import runner


@pytest.mark.parametrize("scenario", runner.SCENARIOS)
def test_scenario(scenario: str) -> None:
    """No crash, no assertion, nothing on stderr. [T8, X8]"""
    outcome, output = runner.run(scenario, scale=0.01, timeout=300)
    if outcome == "skipped":
        pytest.skip(output.strip())
    assert outcome == "passed", output
