"""A witness (c2sp.org/tlog-witness) as the specification has it, over HTTP."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pipeline.errors import Unproven, Unreadable
from pipeline.ledger.checkpoint import Checkpoint, read_checkpoint
from pipeline.ledger.cosignature import cosign
from pipeline.ledger.merkle import check_consistency
from pipeline.ledger.notes import COSIGNATURE, Key, Signer, new_private, split_note, verified
from pipeline.ledger.tlog_proof import ConsistencyProof, read_consistency_proof


class Witness:
    """What it knows, and what it was asked. `fail` is a status with which it answers everything.

    `shown` are the checkpoints that it serves for monitors, by the hash of their origins; None: it serves none.
    """

    def __init__(self, name: str = "witness.example/w1") -> None:
        self.name = name
        self.private = new_private()
        self.key = Key(name, COSIGNATURE, Signer(name, self.private).key.public)
        self.logs: dict[str, list[Key]] = {}
        self.seen: dict[str, tuple[int, bytes]] = {}
        self.asked: list[int] = []
        self.fail: int | None = None
        self.shown: dict[str, str] | None = {}
        self.url = ""

    def trust(self, *keys: Key) -> None:
        for key in keys:
            self.logs.setdefault(key.name, []).append(key)

    def answer(self, body: bytes) -> tuple[int, str, bytes]:
        status, kind, content = self._answer(body)
        self.asked.append(status)
        return status, kind, content

    def _answer(self, body: bytes) -> tuple[int, str, bytes]:
        if self.fail is not None:
            return self.fail, "text/plain", b"out of order"
        try:
            request = read_consistency_proof(body)
            text, signatures = split_note(request.checkpoint)
            checkpoint = read_checkpoint(text)
        except Unreadable as error:
            return 400, "text/plain", str(error).encode()
        if checkpoint.origin not in self.logs:
            return 404, "text/plain", b"unknown log"
        try:
            verified(text, signatures, self.logs[checkpoint.origin])
        except Unproven:
            return 403, "text/plain", b"no signature of a trusted key"
        return self._judged(request, checkpoint)

    def _judged(self, request: ConsistencyProof, checkpoint: Checkpoint) -> tuple[int, str, bytes]:
        size, root = self.seen.get(checkpoint.origin, (0, b""))
        if request.old > checkpoint.size:
            return 400, "text/plain", b"old is larger"
        if request.old != size:
            return 409, "text/x.tlog.size", f"{size}\n".encode()
        try:
            if size:
                check_consistency(size, checkpoint.size, root, checkpoint.root, request.hashes)
            elif request.hashes:
                return 422, "text/plain", b"a proof of nothing"
        except Unproven:
            return 422, "text/plain", b"inconsistent"
        self.seen[checkpoint.origin] = (checkpoint.size, checkpoint.root)
        line = cosign(self.name, self.private, request.checkpoint, int(time.time()))
        if self.shown is not None:
            self.shown[sha256(checkpoint.origin.encode()).hexdigest()] = request.checkpoint + line
        return 200, "text/plain", line.encode()


@contextmanager
def served(witness: Witness) -> Iterator[Witness]:
    """Serves it until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, kind, content = (404, "text/plain", b"") if self.path != "/w/add-checkpoint" else witness.answer(body)
            self._reply(status, kind, content)

        def do_GET(self) -> None:
            found = (witness.shown or {}).get(self.path.removeprefix("/w/").removesuffix("/checkpoint"))
            self._reply(404 if found is None else 200, "text/plain", (found or "").encode())

        def _reply(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    witness.url = f"http://127.0.0.1:{server.server_port}/w"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield witness
    finally:
        server.shutdown()
        server.server_close()
