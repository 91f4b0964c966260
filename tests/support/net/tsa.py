"""A real time-stamping authority: `openssl ts` behind a small HTTP server."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CONFIG = """
[tsa]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
"""


class Authority:
    """Its certificates, by which a client trusts it, its address, and how many stamps it has given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.stamps = 0
        for name in ("ca", "tsa"):
            _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", folder / f"{name}.key")
        self._certify("ca", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n")
        self._certify("tsa", "extendedKeyUsage=critical,timeStamping\nkeyUsage=critical,digitalSignature\n")
        (folder / "serial").write_text("01\n")
        (folder / "config").write_text(CONFIG.format(folder=folder))

    @property
    def certificates(self) -> Path:
        return self.folder / "ca.pem"

    def stamp(self, query: bytes) -> bytes:
        self.stamps += 1
        (self.folder / "query").write_bytes(query)
        config, section = ("-config", self.folder / "config"), ("-section", "tsa")
        _openssl("ts", "-reply", "-queryfile", self.folder / "query", "-out", self.folder / "reply", *config, *section)
        return (self.folder / "reply").read_bytes()

    def verify(self, note: bytes, receipt: bytes) -> str:
        """What openssl says of a receipt."""
        (self.folder / "note").write_bytes(note)
        (self.folder / "receipt").write_bytes(receipt)
        given = ("-data", self.folder / "note", "-in", self.folder / "receipt", "-CAfile", self.certificates)
        return _openssl("ts", "-verify", *given, "-untrusted", self.folder / "tsa.pem")

    def _certify(self, name: str, extensions: str) -> None:
        (self.folder / "extensions").write_text(extensions)
        request = self.folder / "request"
        _openssl("req", "-new", "-key", self.folder / f"{name}.key", "-subj", f"/CN={name}", "-out", request)
        signed = (
            ("-signkey", self.folder / "ca.key")
            if name == "ca"
            else ("-CA", self.certificates, "-CAkey", self.folder / "ca.key")
        )
        given = ("-in", request, "-days", "30", "-extfile", self.folder / "extensions")
        _openssl("x509", "-req", *given, *signed, "-out", self.folder / f"{name}.pem")


@contextmanager
def time_stamping(folder: Path) -> Iterator[Authority]:
    """Serves an authority until the block ends."""
    authority = Authority(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            right = self.headers["Content-Type"] == "application/timestamp-query"
            content = authority.stamp(body) if right else b"not a query"
            self.send_response(200 if right else 415)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    authority.url = f"http://127.0.0.1:{server.server_port}/tsr"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield authority
    finally:
        server.shutdown()
        server.server_close()


def _openssl(*arguments: object) -> str:
    ended = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=30)
    assert 0 == ended.returncode, ended.stderr
    return ended.stdout + ended.stderr
