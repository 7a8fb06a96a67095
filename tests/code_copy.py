"""A copy of the project to run the real pipeline in."""

import shutil
import subprocess
from pathlib import Path


def copy_code(root: Path, folder: Path) -> None:
    """Copy what a commit of this checkout would hold, without results."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = root / name, folder / name
        if (
            source.is_file()
            and not name.startswith(("models/", "reports/"))
            and source.name != "dvc.lock"
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
