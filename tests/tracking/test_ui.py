"""`refashion ui`, as a user calls it; `tests/pipeline/test_ui.py` looks at its page."""

import errno
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from publishing import tell
from refashion import cli
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.tracking import store, ui, view
from servers import environment, free_port, listening

MAIN = (
    "import sys; from pathlib import Path; from refashion import cli; "
    "from refashion.base.workspace import Workspace; "
    "cli.main(sys.argv[1:], obj=Workspace(Path.cwd()))"
)


@pytest.mark.ci
def test_the_table_of_runs_is_served_until_ctrl_c(
    workspace: Workspace, client: MlflowClient
) -> None:
    tell(workspace, "mlp", "weight_decay/decay_0")
    port = free_port()
    start = [sys.executable, "-c", MAIN, "ui", "--port", str(port)]
    with subprocess.Popen(
        start, cwd=workspace.root, env=environment(CI="1"), stdout=subprocess.PIPE, text=True
    ) as command:
        try:
            assert command.stdout
            address = command.stdout.readline().strip()
            experiment = client.get_experiment_by_name("fashion_mnist")
            assert address == view.address(f"http://127.0.0.1:{port}", experiment.experiment_id)
            urllib.request.urlopen(address).close()
            assert listening(command.pid) == {f"127.0.0.1:{port}"}
            command.send_signal(signal.SIGINT)
            assert command.wait(60) == 0
        finally:
            command.terminate()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


def test_the_experiment_to_show_may_be_on_a_later_page(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = MlflowClient.search_experiments
    monkeypatch.setattr(
        MlflowClient,
        "search_experiments",
        lambda client, **options: search(client, **{**options, "max_results": 1}),
    )
    with store.connect(workspace) as connected:
        experiment_id = connected.client.create_experiment("mine", tags={view.TAG: "{}"})
        connected.client.create_experiment("yours")  # the latest are on the first page
        assert ui.experiment(workspace, connected) == experiment_id


@pytest.mark.parametrize("busy", [True, False])
def test_what_cannot_be_shown_is_told_in_one_line(workspace: Workspace, busy: bool) -> None:
    """A port that is in use, and a database without runs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        told = "mlflow.db: there is no run to show; publish with `make repro`\n"
        if busy:
            tell(workspace, "mlp")
            told = f"`make ui PORT={port + 1}` or `refashion ui --port {port + 1}`\n"
        done = CliRunner().invoke(cli.main, ["ui", "--port", str(port)], obj=workspace)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.endswith(told)


@pytest.mark.parametrize(("port", "other"), [(65534, 65535), (65535, 65534)])
def test_another_port_is_one_that_there_is(
    workspace: Workspace, port: int, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind(*_: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(socket.socket, "bind", bind)
    told = f"^port {port}: .* `refashion ui --port {other}`$"
    with store.connect(workspace) as connected, pytest.raises(UserError, match=told):
        ui.show(connected, "1", port, workspace.logs / "ui.txt")
