"""The benchmark of distance: its lines delay and keep the order, and its report tells what each delay cost."""

import asyncio
import time

import pytest

from ops.bench import distance
from ops.bench.distance.forwarder import forward
from ops.servers.ports import choose_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_it_measures_at_a_delay(small) -> None:
    results = distance.run(quick=True, ms=[25])["results"]

    assert 0 < results["recorded_per_s_at_25_ms"]
    assert 0 < results["delivered_per_s_at_25_ms"]
    assert 0 == results["repeats_at_25_ms"]
    assert 6 * 50 < results["single_p50_ms_at_25_ms"]  # at least as many round trips: record, claim, hand over, read
    assert 1.0 == results["ratio_recorded_per_s_at_25_ms"] == results["ratio_delivered_per_s_at_25_ms"]


def test_what_goes_in_comes_out_later_in_its_order_and_ends_as_it_ended() -> None:
    sent = bytes(range(256)) * 4000

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.write_eof()

    async def passed() -> tuple[bytes, float]:
        port = choose_ports(["line"], {})["line"]
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            line = asyncio.create_task(forward(port, server.sockets[0].getsockname()[1], 0.1))
            reader, writer = await _connected(port)
            began = time.monotonic()
            writer.write(sent)
            writer.write_eof()
            received = await reader.read()
            took = time.monotonic() - began
            writer.close()
            line.cancel()
        return received, took

    received, took = asyncio.run(asyncio.wait_for(passed(), 30))

    assert sent == received
    assert took >= 0.2


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
