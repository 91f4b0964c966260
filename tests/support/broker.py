"""Stops and blocks the broker, or the way to it, and restores it."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit
from zipfile import ZipFile

import pika
from pika.exceptions import AMQPError

from ops.servers.binaries import find_erlang_library, find_rabbitmq
from ops.servers.private import PrivateServers
from ops.servers.rabbitmq import NODE
from support.net.loop_thread import LoopThread, close
from support.waiting import wait_for
from testers import NUMBER
from workers.amqp.topology import INBOX

_ONE_THREAD: Final = "+S 1:1 +sbwt none"  # that does not spin: a third of an Erlang VM's CPU less


@contextmanager
def on_one_core() -> Iterator[None]:
    """What the block starts stays on one core: RabbitMQ, whose threads wake each other at every step, takes less CPU there."""
    cores = os.sched_getaffinity(0)
    number = int(os.environ.get(NUMBER, "0"))
    os.sched_setaffinity(0, {sorted(cores)[number % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def broker_stopped(servers: PrivateServers) -> Iterator[None]:
    """Kills the broker for the time of the block, and restarts it with its data afterwards."""
    if servers.child("rabbitmq").running:
        os.kill(servers.rabbitmq_pid, signal.SIGKILL)
    servers.child("rabbitmq").process.wait(10)  # type: ignore[union-attr]
    try:
        yield
    finally:
        with on_one_core():
            servers.restart_rabbitmq()
        wait_for(lambda: works(servers))


def works(servers: PrivateServers) -> bool:
    """Whether the broker serves requests; it accepts connections a little earlier."""
    try:
        with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
            connection.channel().queue_declare(INBOX, passive=True)
    except AMQPError:
        return False
    return True


class Cable:
    """A way to the broker, at `url`, that can be cut and mended: to its clients the broker is away, at no cost to others.

    While it is cut, its port is kept, connections end, and new ones are refused.
    """

    def __init__(self, amqp_url: str) -> None:
        to = urlsplit(amqp_url)
        self._to = (to.hostname, to.port)
        self._server: asyncio.Server | None = None
        self._held = self._bound(0)
        self.port = self._held.getsockname()[1]
        self.url = amqp_url.replace(f":{to.port}/", f":{self.port}/")

    def __enter__(self) -> Self:
        self._thread = LoopThread()
        self.mend()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._thread.stop(self._server)
        self._held.close()

    def mend(self) -> None:
        """Accepts connections again."""
        self._thread.do(self._listen())

    def cut(self) -> None:
        """Ends all connections, and refuses new ones."""
        self._thread.do(self._close())

    @staticmethod
    def _bound(port: int) -> socket.socket:
        """A socket that holds the port together with others of this process, and refuses whoever calls until it listens."""
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", port))
        return bound

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._join, sock=self._bound(self.port))

    async def _close(self) -> None:
        server, self._server = self._server, None
        await close(server)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection(*self._to)
        try:
            await asyncio.gather(_pass_on(reader, to_broker), _pass_on(from_broker, writer))
        finally:
            for each in (writer, to_broker):
                each.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while read := await reader.read(65536):
            writer.write(read)
            await writer.drain()
    writer.close()


@contextmanager
def alarm(servers: PrivateServers) -> Iterator[None]:
    """Makes the broker refuse publishers for the time of the block, as when its memory is full."""
    evaluated(servers, "vm_memory_monitor:set_vm_memory_high_watermark(0).")
    try:
        yield
    finally:
        evaluated(servers, "vm_memory_monitor:set_vm_memory_high_watermark(0.6).")


@contextmanager
def unanswering(servers: PrivateServers, queue: str) -> Iterator[None]:
    """The broker keeps up its heartbeats, and this queue answers nothing: as on a node that was cut off from its cluster."""
    found = f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>))'
    evaluated(servers, f"{found}, sys:suspend(amqqueue:get_pid(Q)).")
    try:
        yield
    finally:
        evaluated(servers, f"{found}, sys:resume(amqqueue:get_pid(Q)).")


@contextmanager
def overlooking(servers: PrivateServers, queue: str) -> Iterator[None]:
    """The broker keeps up the heartbeats of the consumers that the queue has, and gives them nothing."""
    found = f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>))'
    told = evaluated(servers, f"{found}, [element(1, C) || C <- rabbit_amqqueue:consumers(Q)].")
    channels = [f"<0.{one}>" for one in re.findall(r"\.(\d+\.\d+)>", told)]
    assert channels
    evaluated(servers, f"[sys:suspend(list_to_pid(C)) || C <- {json.dumps(channels)}].")
    try:
        yield
    finally:
        evaluated(servers, f"[catch sys:resume(list_to_pid(C)) || C <- {json.dumps(channels)}].")


def end_connection(servers: PrivateServers, name: str) -> None:
    """The broker ends the connections that its clients call so, as a node does that pauses."""
    asked = "P <- rabbit_networking:connections(), {_, Told} <- rabbit_reader:info(P, [client_properties])"
    named = f'lists:keyfind(<<"connection_name">>, 1, Told) =:= {{<<"connection_name">>, longstr, <<"{name}">>}}'
    told = evaluated(servers, f'[rabbit_networking:close_connection(P, "test") || {asked}, {named}].')
    assert "ok" in told, told


def evaluated(servers: PrivateServers, expressions: str) -> str:
    """What the broker's VM makes of Erlang expressions. `rabbitmqctl eval` takes fifty times the CPU, as it starts a VM."""
    broker, library = servers.child("rabbitmq"), find_erlang_library()
    assert library is not None
    (program,) = library.parent.glob("erts-*/bin/erl_call")
    cookie = (broker.folder / ".erlang.cookie").read_text()
    command = [str(program), "-sname", NODE, "-c", cookie, "-timeout", "30", "-e"]
    done = subprocess.run(
        command, env={**broker.environment}, input=f"{expressions}\n", check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("{ok, "), done.stdout
    return done.stdout.removeprefix("{ok, ").removesuffix("}")


def rabbitmqctl(servers: PrivateServers, *command: str) -> None:
    """Runs a command as its users do."""
    _run_as_broker(servers, [str(find_rabbitmq().with_name("rabbitmqctl")), *command])


def rabbitmqctl_in_turn(servers: PrivateServers, commands: Iterable[Sequence[str]], folder: Path) -> None:
    """Runs commands by the program of `rabbitmqctl` in turn, in one Erlang VM: to start one takes most of a command's CPU.

    Raises `CalledProcessError` if one fails. `folder` becomes the program's; the broker's account must be able to reach it.
    """
    program = find_rabbitmq().with_name("rabbitmqctl").resolve().parent.with_name("escript") / "rabbitmqctl"
    with ZipFile(program) as archive:
        archive.extractall(folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    if not (folder / "rabbitmqctl_escript.beam").exists():  # RabbitMQ 4.3 takes its words otherwise: each has a VM then
        for command in commands:
            rabbitmqctl(servers, *command)
        return
    parts = {str(app.parent) for app in folder.rglob("*.app")}  # one folder, or one for each application since RabbitMQ 4
    words = ",".join(f"[{','.join(f'<<{json.dumps(word)}>>' for word in command)}]" for command in commands)
    ended = "try 'Elixir.RabbitMQCtl':main(Words) catch exit:{shutdown, Code} -> Code end"
    run = (
        "[{ok, _} = application:ensure_all_started(App) || App <- [elixir, rabbitmqctl]], "
        f"halt(lists:max([{ended} || Words <- [{words}]]))."
    )
    program_of = ["-pa", *parts, "-eval", run, "-extra", str(program)]
    _run_as_broker(servers, ["erl", "+B", "-boot", "start_clean", "-noinput", "-hidden", *_ONE_THREAD.split(), *program_of])


def _run_as_broker(servers: PrivateServers, command: Sequence[str]) -> None:
    broker = servers.child("rabbitmq")
    who = {} if broker.account is None else {"user": broker.account.uid, "group": broker.account.gid, "extra_groups": []}
    environment = {name: value for name, value in broker.environment.items() if name not in ("ERL_AFLAGS", "ERL_FLAGS")}
    environment["RABBITMQ_CTL_ERL_ARGS"] = _ONE_THREAD
    subprocess.run(command, env=environment, cwd=broker.folder, check=True, capture_output=True, timeout=60, **who)  # type: ignore[call-overload]
