"""A private S3 server (moto), which keeps its objects in memory."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from support.net.ports import free_port
from support.waiting import wait_for

_numbers = count()


@contextmanager
def s3_server() -> Iterator[str]:
    """Runs a server until the block ends; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _answers(address))
        yield address
    finally:
        server.kill()
        server.wait(10)


def variables(address: str) -> dict[str, str]:
    """The environment variables with which a process finds it."""
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    return {**keys, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": address}


def make_bucket(address: str) -> str:
    """Makes a bucket; returns a blob store's URL in it."""
    bucket = f"bucket-{next(_numbers)}"
    urllib.request.urlopen(urllib.request.Request(f"{address}/{bucket}", method="PUT"), timeout=5)
    return f"s3://{bucket}/a/prefix"


def _answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(address, timeout=1).status == 200)
    except OSError:
        return False
