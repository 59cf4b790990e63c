"""Loss of power at any moment: nothing acknowledged is lost, every state opens."""

from pathlib import Path

import pytest

from tests.crash.conftest import Figures
from tests.crash.power.run import examine, record
from tests.kit.programs import need


@pytest.mark.parametrize(
    ("messages", "states"), [(300, 60), pytest.param(3000, 1000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_power_is_lost(tmp_path: Path, figures: Figures, messages: int, states: int) -> None:
    recording = record(tmp_path, need("gcc"), messages, seed=messages)
    account = examine(recording, states, seed=states)
    figures("loss of power", str(account).removeprefix("power loss: "))
    assert account.states == states
    assert account.checked > states
    assert account.sound, f"{account}\n{account.lost[:5]}{account.altered[:5]}{account.unclean[:5]}"


def test_a_disk_that_ignores_syncs_is_found_out(tmp_path: Path) -> None:
    recording = record(tmp_path, need("gcc"), 60, seed=1)
    account = examine(recording, 10, seed=1, obeys_syncs=False)
    assert account.lost
