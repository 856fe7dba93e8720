"""Install the sdist and the wheel as a user would, and train there (`make dist`).

The sdist goes into a fresh environment without a C compiler, the wheel into one with what this
machine has. In each, `headwise doctor` must pass, and a run of one epoch must pass and say which
augmentation it used.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

from packaging.utils import parse_sdist_filename

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")


def main(folder: Path) -> None:
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    version = str(parse_sdist_filename(sdist.name)[1])
    compiled = check_contents(sdist, wheel)
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try_install(sdist, version, {**plain, "CC": "false"}, "torch")
    try_install(wheel, version, plain, "C" if compiled else "torch")


def check_contents(sdist: Path, wheel: Path) -> bool:
    """Every file of the package is in both. Returns whether the wheel has the compiled part."""
    package = ROOT / "src" / "headwise"
    files = [path for path in package.rglob("*") if path.suffix in (".py", ".html", ".typed")]
    wanted = {str(path.relative_to(ROOT / "src")) for path in files}
    with zipfile.ZipFile(wheel) as opened:
        in_wheel = set(opened.namelist())
    assert not wanted - in_wheel, f"the wheel lacks {sorted(wanted - in_wheel)}"
    with tarfile.open(sdist) as opened:
        in_sdist = {name.partition("/")[2] for name in opened.getnames()}
    needed = {f"src/{name}" for name in wanted} | {"src/headwise/augment/views.c", "LICENSE"}
    assert not needed - in_sdist, f"the sdist lacks {sorted(needed - in_sdist)}"
    assert not any(name.startswith("tests") for name in in_sdist), "tests run from a checkout"
    return any(name.startswith("headwise/augment/_views") for name in in_wheel)


def try_install(archive: Path, version: str, environment: dict[str, str], path: str) -> None:
    """Install `archive` and train. `path` is where the augmentation must run: C or torch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = folder / "venv" / "bin" / "python"

        def run(*command: str | Path) -> str:
            done = subprocess.run(
                command, env=environment, cwd=folder, capture_output=True, text=True
            )
            output = done.stdout + done.stderr
            assert done.returncode == 0, f"{command} failed with {done.returncode}:\n{output}"
            return output

        start = time.perf_counter()
        run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
        lock = ROOT / "requirements.lock"
        # The builds that were locked; the development tools among them are not installed.
        run(UV, "pip", "install", "--python", python, "--constraints", lock, archive.resolve())
        installed = time.perf_counter() - start
        headwise = python.with_name("headwise")
        assert run(headwise, "--version").strip() == version
        assert run(python, "-m", "headwise", "--version").strip() == version
        run(headwise, "doctor")
        data = ("--data", "builtin:digits", "--limit", "200", "--batch-size", "100")
        said = run(headwise, "pretrain", *data, "--epochs", "1", "--out", folder / "run")
        assert (folder / "run" / "DONE").exists()
        assert f"augmentation in {path};" in said, said
        print(f"{archive.name}: installed in {installed:.0f} s, trains, augmentation in {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
