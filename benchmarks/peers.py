"""Packages to compare with, each in an environment of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from refashion.base import files
from refashion.base.workspace import Workspace

FOLDER = Workspace.here().root / "build" / "bench-peers"


class Package(NamedTuple):
    """A package, and what must be installed to import it."""

    name: str
    version: str
    module: str
    needs: tuple[str, ...] = ()
    """Packages that it imports and that are not installed here."""


class MissingPackageError(Exception):
    """A package cannot be had or does not work here."""


def python(package: Package) -> Path:
    """The interpreter of an environment with `package` and, beyond that, what is installed here.

    The package comes without its pins, so that torch is the same for all contenders.

    Raises
    ------
    MissingPackageError
        If the package cannot be had.
    """
    search = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    uv = shutil.which("uv", path=search)
    if not uv:
        raise MissingPackageError("uv, which installs it, is missing")
    environment = FOLDER / package.name
    interpreter = environment / "bin" / "python"
    install = (uv, "pip", "install", "--quiet", "--python", interpreter)
    site = (interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    try:
        output(uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, environment)
        output(*install, "--no-deps", f"{package.name}=={package.version}")
        if package.needs:
            output(*install, *package.needs)
        here = next(p for p in sys.path if Path(p).name == "site-packages")
        files.write_text(Path(output(*site).strip()) / "refashion-bench.pth", f"{here}\n")
        output(interpreter, "-c", f"import {package.module}")
    except subprocess.CalledProcessError as error:
        raise MissingPackageError(" ".join(error.stderr.split())) from error
    return interpreter


def output(*command: str | Path) -> str:
    """What a command prints; its messages are kept for the error."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
