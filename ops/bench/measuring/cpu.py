"""The CPU that a run used: that of the measured processes, of Postgres and of RabbitMQ."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from ops.servers.private import PrivateServers


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds of CPU, user and system, that each process has used since its start."""

    processes: tuple[float, ...]
    postgres: float
    rabbitmq: float


class CpuMeter:
    """Reads the CPU that some processes and the private servers have used so far.

    `apart`: the pid of a session of Postgres that is the benchmark's own; it must live as long as the meter is read.
    """

    def __init__(self, servers: PrivateServers, processes: Sequence[psutil.Process], apart: int | None = None) -> None:
        self._processes = processes
        self._apart = None if apart is None else psutil.Process(apart)
        self._postgres = psutil.Process(servers.postgres_pid)
        self._rabbitmq = psutil.Process(servers.rabbitmq_pid)

    def read(self) -> Cpu:
        """The CPU used up to now, including that of children that have ended."""
        used = tuple(cpu_seconds(process) for process in self._processes)
        apart = 0.0 if self._apart is None else cpu_seconds(self._apart)
        return Cpu(used, cpu_seconds(self._postgres) - apart, cpu_seconds(self._rabbitmq))


def cpu_per_event(names: Sequence[str], before: Cpu, after: Cpu, events: int) -> dict[str, float]:
    """Microseconds of CPU per event between two readings: of each process by its name, added up where names repeat."""
    found: dict[str, float] = {}
    for name, used, had in zip(names, after.processes, before.processes, strict=True):
        found[name] = found.get(name, 0.0) + used - had
    found |= {"postgres": after.postgres - before.postgres, "rabbitmq": after.rabbitmq - before.rabbitmq}
    return {f"{name}_cpu_us": round(seconds / events * 1e6, 1) for name, seconds in found.items()}


def mean(rounds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over rounds that all have the same figures."""
    found = list(rounds)
    return {name: round(sum(each[name] for each in found) / len(found), 1) for name in found[0]}


def cpu_seconds(process: psutil.Process) -> float:
    """The CPU of a process and its descendants: of running ones by their own times, of ended ones by their parents' times."""
    seconds = 0.0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds
