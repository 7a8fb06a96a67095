"""Run one stage of the pipeline: ``python stages [--debug] NAME [ITEM]``.

ITEM is what the stage is about: a variant, a study. DVC tells it by the stage's own name, as in
``train@mlp``, so that no text of params.yaml reaches a shell.

Puts this checkout's own ``src/`` first on the path, so that an experiment in a temporary folder
runs the code it was queued with, and turns a user's mistake into one line and exit code 2.
"""

import importlib
import inspect
import os
import socket
import sys
import time
from pathlib import Path
from threading import Thread

STAGES = Path(__file__).resolve().parent
sys.path.insert(0, str(STAGES.parent / "src"))
# Threads that wait for each other sleep soon: on a machine that is shared, spinning costs tenfold.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
BY_TORCHRUN = "TORCHELASTIC_RUN_ID" in os.environ


def run(name: str, *item: str) -> None:
    """Run ``main`` of ``stages/NAME.py`` and refuse its result if its code changed meanwhile."""
    from refashion.base import errors, files
    from refashion.base.workspace import Workspace

    started, workspace = time.time(), Workspace.here()
    names = sorted(p.stem for p in STAGES.glob("*.py") if not p.stem.startswith("_"))
    if name not in names:
        raise errors.UserError(f"stage {name!r} does not exist; there are {', '.join(names)}")
    if BY_TORCHRUN and name != "train":
        raise errors.UserError(f"stage {name}: torchrun is for train alone: python stages {name}")
    for file in files.left(*workspace.written):
        file.unlink(missing_ok=True)
    own_item = os.environ.get("DVC_STAGE", "").partition("@")[2]
    main = importlib.import_module(name).main
    items = item or [*filter(None, [own_item])]
    signature = inspect.signature(main)
    try:
        signature.bind(*items)
    except TypeError:
        usage = " ".join(["python stages", name, *map(str.upper, signature.parameters)])
        raise errors.UserError(f"stage {name}: takes other arguments; run {usage}") from None
    main(*items)
    # DVC hashes a stage's deps after it ran: an edit made meanwhile would be recorded as used.
    loaded = {getattr(module, "__file__", None) for module in sys.modules.values()}
    used = {Path(file) for file in loaded if file}
    own = {f for f in used if f.is_relative_to(workspace.root) and ".venv" not in f.parts}
    ended = time.time()  # a file from the future was not changed meanwhile
    for file in sorted(own | {workspace.params_file}):
        if started < file.stat().st_mtime <= ended:
            changed = workspace.relative(file)
            raise errors.UserError(f"{changed} changed while the stage was running: run it again")


def end_with_launcher(launcher: int) -> None:
    """End this process once its launcher has ended: torchrun, if killed, leaves it running."""
    from refashion.base.machine import end_with

    time.sleep(1)
    if store_is_closed():
        os._exit(1)
    end_with(launcher)


def store_is_closed() -> bool:
    """Whether the launcher had ended before this process could see that it was the parent."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return False  # the store is another of these processes, which may not have started
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        socket.create_connection(address, timeout=60).close()
    except OSError as error:  # another machine's, say, that cannot be reached: torch will tell
        return isinstance(error, ConnectionRefusedError)
    return False


def tell(line: str) -> None:
    """Print a line on standard error; where torchrun has started several processes, once."""
    if BY_TORCHRUN:
        from refashion.training import workers

        workers.tell(line)
    else:
        print(line, file=sys.stderr)


def main() -> int:
    """Return the exit code: 0 done, 2 the user's mistake, 130 interrupted."""
    if BY_TORCHRUN:
        Thread(target=end_with_launcher, args=(os.getppid(),), daemon=True).start()
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        from refashion.base.errors import UserError, one_line
        from refashion.base.machine import collect_garbage_seldom

        collect_garbage_seldom()
        if not arguments:
            raise UserError("name a stage: python stages NAME [ITEM]")
        run(*arguments)
    except KeyboardInterrupt:
        tell("interrupted: `make repro` goes on from here")
        return 130
    except ModuleNotFoundError as error:
        if debug or (error.name or "").startswith("refashion"):
            raise
        print(
            f"error: {sys.executable} has no package {error.name!r}: "
            "activate the environment (source .venv/bin/activate) or run `make repro`",
            file=sys.stderr,
        )
        return 2
    except (UserError, OSError) as error:
        if debug:
            raise
        tell(f"error: {one_line(error)}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
