"""Processes in which every package but torch and numpy is refused."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PREFACE = f"""
import sys
import numpy, torch, torch.utils.data  # and whatever these import,
torch.use_deterministic_algorithms(False)  # some of it not before it is used

class Refusing:
    allowed = {{*sys.stdlib_module_names, "torch", "numpy", "refashion"}}
    allowed |= {{{", ".join(repr(path.stem) for path in (ROOT / "benchmarks").glob("*.py"))}}}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError(f"refused: {{name}}", name=name)

sys.meta_path.insert(0, Refusing())
"""
ENVIRONMENT = {
    **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
    "CUDA_VISIBLE_DEVICES": "",  # a GPU is hidden
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'benchmarks'}",
}


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code with torch and numpy alone."""
    return subprocess.run(
        [sys.executable, "-c", PREFACE + code, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
