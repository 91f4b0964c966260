"""The chosen ports: free, and reserved for their owner while it runs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.servers.ports import Claims, choose_ports, is_free
from ops.servers.state_file import Memory
from support.waiting import wait_for

HOLD = """
import sys, time
from ops.servers.ports import Claims
assert Claims().take(int(sys.argv[1])) is False, "another process may claim it"
claims = Claims()
assert claims.take(int(sys.argv[2]))
print("claimed", flush=True)
time.sleep(60)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="claims are Linux's abstract sockets")


@pytest.fixture
def claims() -> Iterator[Claims]:
    claims = Claims()
    yield claims
    claims.release()


def test_the_port_of_a_server_that_is_down_for_a_moment_is_no_other_systems(claims: Claims, tmp_path: Path) -> None:
    """A killed ingress is restarted after up to 30 s. Another system with its port would get its messages until then."""
    default = choose_ports(["ingress"], {})
    one, other = [Memory(_made(tmp_path / name)) for name in ("one", "other")]
    one.take_ports(["ingress"], claims, default)
    others_claims = Claims()

    other.take_ports(["ingress"], others_claims, default)
    again = dict(one.ports)
    one.take_ports(["ingress"], claims, default)

    assert is_free(default["ingress"])  # no process listens there
    assert default == one.ports == again
    assert default["ingress"] != other.ports["ingress"]
    others_claims.release()


def test_ports_are_anyones_when_their_owner_has_stopped(claims: Claims, tmp_path: Path) -> None:
    before = Claims()
    one, other = [Memory(_made(tmp_path / name)) for name in ("one", "other")]
    one.take_ports(["ingress"], before)
    before.release()

    other.take_ports(["ingress"], claims, one.ports)

    assert one.ports == other.ports


def test_a_claim_holds_for_all_processes_and_ends_with_its_own_however_that_ends(claims: Claims) -> None:
    ours, theirs = choose_ports(["ours", "theirs"], {}).values()
    assert claims.take(ours)

    with subprocess.Popen([sys.executable, "-c", HOLD, str(ours), str(theirs)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert "claimed\n" == holder.stdout.readline()
        assert not claims.take(theirs)
        os.kill(holder.pid, signal.SIGKILL)

    wait_for(lambda: claims.take(theirs))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
