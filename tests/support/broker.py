"""Stops and blocks the broker, and restores it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from ops.servers.binaries import find_rabbitmq
from ops.servers.private import PrivateServers
from support.waiting import wait_for
from workers.amqp.topology import INBOX


def inbox_size(channel: BlockingChannel) -> int:
    """How many messages are in the inbox that no consumer holds."""
    return int(channel.queue_declare(INBOX, passive=True).method.message_count)


def consumers(channel: BlockingChannel) -> int:
    """How many workers consume the inbox."""
    return int(channel.queue_declare(INBOX, passive=True).method.consumer_count)


@contextmanager
def broker_stopped(servers: PrivateServers) -> Iterator[None]:
    """Kills the broker for the time of the block, and restarts it with its data afterwards."""
    if servers.child("rabbitmq").running:
        os.kill(servers.rabbitmq_pid, signal.SIGKILL)
    servers.child("rabbitmq").process.wait(10)  # type: ignore[union-attr]
    try:
        yield
    finally:
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


@contextmanager
def alarm(servers: PrivateServers) -> Iterator[None]:
    """Makes the broker refuse publishers for the time of the block, as when its memory is full."""
    rabbitmqctl(servers, "set_vm_memory_high_watermark", "0")
    try:
        yield
    finally:
        rabbitmqctl(servers, "set_vm_memory_high_watermark", "0.6")


def rabbitmqctl(servers: PrivateServers, *command: str) -> None:
    broker = servers.child("rabbitmq")
    who = {} if broker.account is None else {"user": broker.account.uid, "group": broker.account.gid, "extra_groups": []}
    program = find_rabbitmq().with_name("rabbitmqctl")
    environment = {name: value for name, value in broker.environment.items() if name != "ERL_FLAGS"}
    environment["RABBITMQ_CTL_ERL_ARGS"] = "+S 1:1 +sbwt none"  # one thread that does not spin: a third of the CPU less
    subprocess.run(
        [str(program), *command], env=environment, cwd=broker.folder, check=True, capture_output=True, timeout=60, **who
    )  # type: ignore[call-overload]
