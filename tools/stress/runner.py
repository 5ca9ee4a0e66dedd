"""Run each scenario of this directory in a process of its own: python runner.py [--scale N] [--stock] [SCENARIO ...]

A scenario ends with status 0 when all is well and 77 when it does not apply to this interpreter, and says nothing on
stderr. Anything else (an assertion, a signal, a report by a sanitizer, no end in time) is a failure.

A crash or a report proves a bug; a clean run only gives confidence. --stock runs asyncio.TaskGroup in place of ours, to
tell whose a failure is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCENARIOS = sorted(path.stem for path in HERE.glob("[a-z]*.py") if path.stem not in ("common", "runner"))
NOT_APPLICABLE = 77


def run(scenario: str, scale: float = 1, stock: bool = False, timeout: float = 900) -> tuple[str, str]:
    """`passed`, `skipped` or `failed`, and what the scenario wrote."""
    paths = [str(HERE.parent.parent), str(HERE.parent), str(HERE)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(HERE / f"{scenario}.py"), "--scale", str(scale)] + ["--stock"] * stock
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, errors="replace")
    except subprocess.TimeoutExpired as error:
        streams = [stream.decode(errors="replace") for stream in (error.stdout, error.stderr) if stream]
        return "failed", "".join(streams) + f"no end in {timeout:g} seconds\n"
    if done.returncode == NOT_APPLICABLE:
        return "skipped", done.stdout + done.stderr
    if done.returncode != 0 or done.stderr:
        return "failed", f"{done.stdout}{done.stderr}status {done.returncode}\n"
    return "passed", done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=SCENARIOS)
    parser.add_argument("--scale", type=float, default=1, help="how much of everything, 1 by default")
    parser.add_argument("--stock", action="store_true", help="asyncio.TaskGroup in place of ours")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for a scenario")
    options = parser.parse_args()
    failed = []
    for scenario in options.scenarios:
        outcome, output = run(scenario, options.scale, options.stock, options.timeout)
        print(f"== {scenario}: {outcome}\n{output}", end="", flush=True)
        if outcome == "failed":
            failed.append(scenario)
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
