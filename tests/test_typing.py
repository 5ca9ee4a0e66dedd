"""What type checkers see: mypy reads the package's stub as a user's checker would."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path


def test_reveal_types(tmp_path: Path) -> None:
    """Task[T] comes from coroutines, coroutine functions, partials and lambdas; wrong use is an error."""
    source = tmp_path / "user.py"
    source.write_text(
        textwrap.dedent("""
            import asyncio, functools
            from quattro import TaskGroup, TaskGroupStatistics

            async def job(x: int = 0) -> str: return str(x)

            async def main() -> None:
                async with TaskGroup(concurrency_limit=10) as tg:
                    reveal_type(tg)
                    reveal_type(tg.create_task(job(1), name="n"))
                    reveal_type(tg.create_task(job))
                    reveal_type(tg.create_task(functools.partial(job, 3)))
                    reveal_type(tg.create_task(lambda: job(2)))
                    reveal_type(tg.create_background_task(job))
                    reveal_type(tg.statistics().queued)
                    tg.create_task(42)
                    tg.create_task(asyncio.Future[int]())
                TaskGroup(10)
                TaskGroup(concurrency_limit=1.5)
        """)
    )
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", str(source)], capture_output=True, text=True)
    revealed = [line.split("Revealed type is ")[1] for line in done.stdout.splitlines() if "Revealed" in line]
    task = 'Task[str]"'
    assert "TaskGroup" in revealed[0] and all(line.endswith(task) for line in revealed[1:6]), done.stdout
    assert revealed[6].strip('"').endswith("int")
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert [int(line.split(":")[1]) for line in errors] == [16, 17, 18, 19], done.stdout
