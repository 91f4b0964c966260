"""One connection to the broker on the event loop, with pika's callbacks turned into awaitables."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, cast

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from workers.amqp.confirm_window import Outgoing
from workers.amqp.publish_frames import encoded
from workers.amqp.topology import NOT_FOUND, Declaration, questions

_CLOSE_SECONDS: Final = 2.0


class Lost(Exception):
    """The connection or its channel ended."""


class Refused(Exception):
    """The broker closed a channel because of a request on it; `code` is AMQP's reply code."""

    def __init__(self, error: object) -> None:
        self.code = error.reply_code if isinstance(error, ChannelClosedByBroker) else 0
        super().__init__(_root_cause(error))


class Unsendable(ValueError):
    """The message cannot be encoded as AMQP frames."""


class Session:
    """A connection, opened on the running event loop; `ended` gets the reason when it, or its channel, ends."""

    def __init__(self, parameters: pika.URLParameters) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = loop.create_future()
        self.blocked: str | None = None
        self._opened: asyncio.Future[Any] = loop.create_future()
        self._closed = asyncio.Event()
        self.connection = Connection(
            parameters,
            on_open_callback=self._opened.set_result,
            on_open_error_callback=self._gone,
            on_close_callback=self._gone,
            custom_ioloop=loop,
        )

    async def opened(self) -> None:
        """Return when the connection is open. Raises `Lost`."""
        await self._settled(self._opened)

    async def reply(self, ask: Callable[[Callable[[Any], None]], object]) -> Any:
        """Call `ask` with a callback, and give the reply that the callback gets. Raises `Lost`, or pika's errors."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        ask(partial(_set, answer))
        return await self._settled(answer)

    async def channel(self) -> Channel:
        """Open a channel. Raises `Lost`."""
        return cast("Channel", await self.reply(lambda reply: self.connection.channel(on_open_callback=reply)))

    async def exists(self, exchange: str) -> bool:
        """Ask the broker whether the exchange exists. Raises `Lost`."""
        try:
            return await self.missing([("exchange_declare", {"exchange": exchange})]) is None
        except Refused:
            return False

    async def missing(self, topology: Sequence[Declaration]) -> str | None:
        """Give the first exchange or queue that does not exist. Raises `Lost`, or `Refused` if it may not ask."""
        async with self.side_channel() as channel:
            for question, name in questions(topology):
                try:
                    await channel.do(*question)
                except Refused as refused:
                    if refused.code != NOT_FOUND:
                        raise
                    return name
        return None

    @asynccontextmanager
    async def side_channel(self) -> AsyncIterator["SideChannel"]:
        """A separate channel: a refusal closes it, and would fail messages in flight on a shared one."""
        channel = await self.channel()
        try:
            yield SideChannel(self, channel)
        finally:
            if channel.is_open:
                channel.close()

    def end(self, error: object) -> None:
        """Mark the session as ended; only the first reason counts."""
        if not self.ended.done():
            self.ended.set_result(_root_cause(error))

    async def close(self) -> None:
        """Close the connection. If the broker does not answer within two seconds, the heartbeat ends it later."""
        self.end("closed")
        if not self._closed.is_set():
            try:
                self.connection.close()
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._closed.wait()
            except (AMQPError, TimeoutError):
                return

    async def settled(self, *futures: asyncio.Future[Any]) -> None:
        """Return when one of `futures` is done. Raises `Lost`."""
        await asyncio.wait({*futures, self.ended}, return_when=asyncio.FIRST_COMPLETED)
        if self.ended.done():
            raise Lost(self.ended.result())

    async def _settled(self, future: asyncio.Future[Any]) -> Any:
        await self.settled(future)
        return future.result()

    def _gone(self, _connection: Any, error: object) -> None:
        self._closed.set()
        self.end(error)


class SideChannel:
    """A channel on which the broker may refuse requests."""

    def __init__(self, session: Session, channel: Channel) -> None:
        self._session = session
        self._channel = channel
        self._closed: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        channel.add_on_close_callback(lambda _channel, error: _set(self._closed, error))

    async def do(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """Call a channel method; give the broker's reply. Raises `Lost`, or `Refused`, which closes the channel."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        getattr(self._channel, method)(**arguments, callback=partial(_set, answer))
        await self._session.settled(answer, self._closed)
        if not answer.done():
            raise Refused(self._closed.result())
        return answer.result()


def _root_cause(error: object) -> str:
    """The root cause: pika wraps a refused connection three times, and the outermost error says nothing."""
    while isinstance(error, BaseException):
        wrapped = [getattr(error, "exception", None), *getattr(error, "exceptions", ()), *error.args]
        causes = [one for one in wrapped if isinstance(one, BaseException)]
        if not causes:
            break
        error = causes[-1]
    return str(error) or repr(error)


def _set(answer: asyncio.Future[Any], value: Any) -> None:
    if not answer.done():
        answer.set_result(value)


class Connection(AsyncioConnection):  # type: ignore[misc]
    """Sends once per loop iteration: pika's send for each frame, three to a message, costs as much as all the rest."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._frames: list[bytes] = []
        super().__init__(*arguments, **options)

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        # Bodies are split into frames, properties are not; the broker would close the connection, failing all messages on it.
        if max(map(len, marshaled_frames)) > self.params.frame_max:
            raise Unsendable(f"the message's properties do not fit into a frame of {self.params.frame_max} bytes")
        super()._output_marshaled_frames(marshaled_frames)

    def publish(self, channel: Channel, message: Outgoing) -> None:
        """Publish on `channel`. If it raises (pika's errors, `Unsendable`, ValueError, TypeError), nothing was sent."""
        frames = encoded(channel.channel_number, message, self.params.frame_max) if channel.is_open else None
        if frames is None:
            channel.basic_publish(
                message.exchange, message.routing_key, message.body, message.properties, mandatory=message.mandatory
            )
        else:
            if not self._frames:
                self.ioloop.call_soon(self._emit)
            self._frames += frames

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._frames:
            self.ioloop.call_soon(self._emit)
        self._frames.append(data)

    def _emit(self) -> None:
        data = b"".join(self._frames)
        self._frames.clear()
        transport = self._transport
        if transport is not None:
            super()._adapter_emit_data(data)
            transport._on_socket_writable()  # noqa: SLF001 - write now, not in the next iteration
