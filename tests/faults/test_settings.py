"""Settings of any kind, given to DVC: refused before anything is lost, and run by no shell."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import injected
from campaign import Campaign, Ground, results
from damage import changed_params
from refashion.base import params
from refashion.base.errors import UserError
from refashion.base.params import cost
from refashion.base.workspace import Workspace

pytestmark = pytest.mark.faults

CASES = 100
CHECKED = "data/checked"
"""All that DVC removes before the settings are looked at."""


def is_legal(workspace: Workspace) -> bool:
    """Whether the settings are, and this machine can hold what they ask for."""
    try:
        cost.refuse_impossible(params.load(workspace.params_file))
    except UserError:
        return False
    return True


def test_settings_through_dvc(ground: Ground, campaign: Campaign) -> None:
    """Legal ones are let through, and are not trained here: that may take years."""
    environment, file = ground.workspace.environment, ground.root / "params.yaml"
    kept = {item for item in ground.expected.outputs.items() if item[0] != CHECKED}
    with campaign.of("params.yaml: changed at random") as trials:

        @settings(
            max_examples=CASES,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(text=changed_params(ground.pristine / "params.yaml"))
        def test(text: str) -> None:
            ground.put_back()
            file.write_text(text, encoding="utf-8")
            legal = is_legal(Workspace(ground.root))
            target = ("check",) if legal else ()
            outcome = injected.dvc(ground.root, "repro", *target, **environment)
            wrong = ["untold"] * ("Traceback" in outcome.text)
            wrong += ["stuck"] * (outcome.code is None or (outcome.code == 0) != legal)
            file.write_bytes((ground.pristine / "params.yaml").read_bytes())
            wrong += ["lost"] * (not kept <= results(ground.root).items())
            again = injected.dvc(ground.root, "repro", "check", **environment)
            trials.add(text, wrong + ground.check(again))

        test()
