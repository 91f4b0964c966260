import socket
from collections.abc import Iterator
from contextlib import suppress
from threading import Event, Thread

import pytest

from workers.commands import post_sample
from workers.commands.post_sample import post


@pytest.fixture
def trickle() -> Iterator[str]:
    """A server that begins an answer and sends a byte of it now and then, for two seconds."""
    ended = Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connected, _ = listener.accept()
            with connected, suppress(OSError):
                connected.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nslow: ")
                for _ in range(40):
                    if ended.wait(0.05):
                        return
                    connected.sendall(b"x")
                connected.sendall(b"\r\n\r\nx")

        thread = Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        ended.set()
        thread.join()


def test_one_deadline_holds_for_the_whole_answer(trickle: str, monkeypatch) -> None:
    monkeypatch.setattr(post_sample, "_DEADLINE", 0.5)

    with pytest.raises(TimeoutError):
        post(trickle, {}, b"{}")


def test_what_prevents_an_answer_is_raised() -> None:
    with pytest.raises(ConnectionRefusedError), socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.close()
        post(f"http://127.0.0.1:{port}/", {}, b"{}")
