"""Three RabbitMQ nodes in a cluster, each on a loopback address of its own, whose queues are quorum queues.

With addresses of their own the ways between nodes can be cut. The port mapper, which serves all of them, wants
each to have a port of its own for the others.

Of the two parameters for partitions, RabbitMQ before 4.3 ignores `consumer_disconnected_timeout`, and later ones the other.
"""

import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Final

from ops.servers.accounts import own_file, own_folder, server_account
from ops.servers.binaries import find_rabbitmq
from ops.servers.child import Child, stop, wait_ready
from ops.servers.ports import Claims, choose_ports
from ops.servers.rabbitmq import epmd_child, rabbitmq_child

ADDRESSES: Final = ("127.0.1.1", "127.0.1.2", "127.0.1.3")
VHOST: Final = "cluster"
COOKIE: Final = "failover"
PASSWORD: Final = "failover"

_NODE: Final = """\
[{{rabbit, [
  {{tcp_listeners, [{{"{address}", {port}}}]}},
  {{default_user, <<"waxseal">>}},
  {{default_pass, <<"{password}">>}},
  {{loopback_users, []}},
  {{cluster_partition_handling, pause_minority}},
  {{consumer_disconnected_timeout, 1}},
  {{cluster_nodes, {{[{nodes}], disc}}}}
]}},
{{kernel, [{{net_ticktime, 6}}]}}].
"""


class Cluster:
    """The nodes by number, 0 to 2, from `start` to `stop`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._account = server_account("rabbitmq")
        self._claims = Claims()
        self._ports = choose_ports(("amqp", "epmd", *map(_name, range(3))), {}, claims=self._claims)
        self.nodes: list[Child] = []
        self._epmd: Child

    @property
    def urls(self) -> str:
        """Of all nodes, with commas between them."""
        return ",".join(self.url(number) for number in range(len(ADDRESSES)))

    def url(self, number: int) -> str:
        return f"amqp://waxseal:{PASSWORD}@{ADDRESSES[number]}:{self._ports['amqp']}/{VHOST}"

    def start(self) -> None:
        own_folder(self._folder, self._account)
        epmd = epmd_child(self._folder / "epmd-home", self._ports["epmd"], self._account, self._folder / "log" / "epmd.log")
        self._epmd = replace(epmd, command=[*epmd.command[:-1], ",".join(ADDRESSES)])
        self._epmd.start()
        wait_ready([self._epmd], 10)
        self.nodes = [self._described(number) for number in range(len(ADDRESSES))]
        if not any((find_rabbitmq().resolve().parents[1] / "plugins").glob("khepri-*")):
            self.start_node(0)  # RabbitMQ 4 would wait for the others
        for node in self.nodes:
            if node.process is None:
                node.start()
        self.await_whole()
        self.ctl("add_vhost", VHOST, "--default-queue-type", "quorum")
        self.ctl("set_permissions", "-p", VHOST, "waxseal", ".*", ".*", ".*")

    def stop(self) -> None:
        stop(self.nodes, 10)
        stop([self._epmd], 10)
        self._claims.release()

    def start_node(self, number: int) -> None:
        """Starts a node that does not run, and waits until it serves clients."""
        self.nodes[number].start()
        wait_ready([self.nodes[number]], 120)

    def await_whole(self) -> None:
        """Waits until all nodes run and serve clients: one that paused takes half a minute to come back."""
        wait_ready(self.nodes, 120)
        self.ctl("await_online_nodes", "3")

    def leader(self, queue: str, on: int = 0) -> int:
        """The number of the node that leads the queue."""
        listed = self.ctl("list_queues", "-p", VHOST, "name", "leader", "--no-table-headers", "--quiet", on=on)
        (node,) = [line.split()[1] for line in listed.splitlines() if line.split()[:1] == [queue]]
        return [_name(each) for each in range(len(ADDRESSES))].index(node)

    def serving(self, role: str) -> int:
        """The number of the node to which the process of this role connected last for its messages."""
        told = f"client-provided name: waxseal {role}"
        logs = [self._folder / "log" / f"r{number}.log" for number in range(len(ADDRESSES))]
        last = [max((line for line in log.read_text().splitlines() if line.endswith(told)), default="") for log in logs]
        return last.index(max(last))  # lines begin with their time

    def rabbitmqctl(self, on: int = 0) -> list[str]:
        """The command, on the node `on`."""
        told = {name: value for name, value in self.nodes[on].environment.items() if name not in ("ERL_AFLAGS", "ERL_FLAGS")}
        told["RABBITMQ_CTL_ERL_ARGS"] = "+S 1:1 +sbwt none"
        program = str(find_rabbitmq().with_name("rabbitmqctl"))
        variables = [f"{name}={value}" for name, value in told.items()]
        account = self.nodes[on].account
        who = [] if account is None else ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
        return [*who, "env", "-i", "-C", str(self.nodes[on].folder), *variables, program, "--longnames", "-n", _name(on)]

    def ctl(self, *command: str, on: int = 0) -> str:
        """What `rabbitmqctl` prints, asked of the node `on`."""
        asked = [*self.rabbitmqctl(on), *command]
        ended = subprocess.run(asked, capture_output=True, text=True, timeout=150, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def _described(self, number: int) -> Child:
        home, address = self._folder / f"r{number}", ADDRESSES[number]
        ports = (self._ports["amqp"], self._ports[_name(number)], self._ports["epmd"])
        own_folder(home, self._account)
        own_file(home / ".erlang.cookie", COOKIE, self._account, mode=0o400)
        one = rabbitmq_child(home, ports, PASSWORD, self._account, self._folder / "log" / f"r{number}.log")
        nodes = ", ".join(f"'{_name(each)}'" for each in range(len(ADDRESSES)))
        own_file(
            home / "advanced.config",
            _NODE.format(address=address, port=ports[0], password=PASSWORD, nodes=nodes),
            self._account,
        )
        host = "{" + address.replace(".", ",") + "}"
        environment = {
            **one.environment,
            "RABBITMQ_NODENAME": _name(number),
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"-kernel inet_dist_use_interface {host} -kernel inet_dist_connect_options [{{ip,{host}}}] +S 1:1 +sbwt none"
            ),
        }
        return replace(one, name=f"r{number}", environment=environment, ready=lambda: _serves(address, ports[0]))


def _name(number: int) -> str:
    return f"r{number}@{ADDRESSES[number]}"


def _serves(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False
