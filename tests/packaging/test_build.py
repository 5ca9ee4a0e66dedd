"""What setup.py builds: an extension without debug information, unless somebody asks for it."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not (ROOT / "quattro").exists(), reason="the source of the package is not here")


@pytest.mark.skipif(sys.platform != "linux", reason="looks for ELF's sections by name")
@pytest.mark.parametrize("symbols", ["", "1"], ids=["for users", "for debuggers"])
def test_symbols(symbols: str, tmp_path: Path) -> None:
    """What pip builds from the source is as small as the wheels of the index: names and lines are stripped."""
    pytest.importorskip("setuptools")
    switches = [name for name in os.environ if name.startswith("QUATTRO_")]
    env = {name: value for name, value in os.environ.items() if name not in switches}
    env |= {"CFLAGS": "-O0", "QUATTRO_SYMBOLS": symbols}
    command = [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={tmp_path}", f"--build-temp={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = tmp_path.glob("quattro/_quattro.*.so")
    found = {name for name in (b".debug_info", b".symtab") if name in built.read_bytes()}
    assert found == ({b".debug_info", b".symtab"} if symbols else set())


@pytest.mark.parametrize("target", ["arm64-apple-macos11", "x86_64-apple-macos11"])
def test_switches_for_macos(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its compiler knows what to do with each of them: one that it does not use is a warning, and so an error."""
    setuptools = pytest.importorskip("setuptools")
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")
    built: list[setuptools.Extension] = []
    monkeypatch.setattr(setuptools, "setup", lambda ext_modules: built.extend(ext_modules))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("QUATTRO_WERROR", "1")
    runpy.run_path(str(ROOT / "setup.py"))
    switches = [f"--target={target}", *built[0].extra_compile_args]
    command = ["clang", *switches, "-x", "c", "-c", os.devnull, "-o", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
