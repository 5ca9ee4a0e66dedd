"""What `import quattro` costs in a program that has imported asyncio, and how large the extension is.

Each figure is the best of many processes: the modules' own times as -X importtime gives them, and the difference of the
processor time of whole processes, those with and without quattro taking turns.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import quattro
from quattro import _quattro


def importtime() -> dict[str, int]:
    """Microseconds of each module of ours, those that it imports included."""
    command = [sys.executable, "-X", "importtime", "-c", "import asyncio, quattro"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    rows = [[part.strip() for part in line.removeprefix("import time:").split("|")] for line in lines]
    return {name: int(total) for _, total, name in rows if name.split(".")[0] == "quattro"}


def processor_time(code: str) -> float:
    """Milliseconds of processor that a process takes to run the code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=50, help="how many of each kind (50)")
    count = parser.parse_args().processes
    modules = [importtime() for _ in range(count)]
    for name in modules[0]:
        print(f"{name:20} {min(row[name] for row in modules) / 1000:6.2f} ms")
    ours, bare = [], []
    for _ in range(count):
        ours.append(processor_time("import asyncio, quattro"))
        bare.append(processor_time("import asyncio"))
    print(
        f"{'a process':20} {min(ours) - min(bare):6.2f} ms more than the {min(bare):.1f} ms of one with asyncio alone"
    )
    size = Path(str(_quattro.__file__)).stat().st_size
    package = sum(path.stat().st_size for path in Path(quattro.__file__).parent.iterdir() if path.is_file())
    print(f"the extension has {size:,} bytes, the package {package:,}")


if __name__ == "__main__":
    main()
