"""Databases as earlier versions of Waxseal left them."""

import uuid
from hashlib import sha256
from pathlib import Path

import orjson
import psycopg

import ops.migrations
from pipeline.chain import commitment, encode
from pipeline.dedupe import chain_key, fingerprint

VERSIONS = Path(ops.migrations.__file__).parent / "versions"
KEY = b"k" * 32


def make(url: str, version: str) -> None:
    """Makes the schema of `version` in an empty database."""
    with psycopg.connect(url) as conn:
        conn.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        for script in sorted(VERSIONS.glob("*.sql")):
            if script.name[:4] <= version:
                conn.execute(script.read_text())
        conn.execute("INSERT INTO alembic_version VALUES (%s)", [version])


def fill_0010(url: str, chains: int, length: int, tenant: str = "acme") -> None:
    """Adds chains of `length` entries, as version 0010 wrote them: with stored envelopes."""
    with psycopg.connect(url) as conn:
        for number in range(chains):
            _chain_0010(conn, tenant, f"order-{number}", length)


def _chain_0010(conn: psycopg.Connection, tenant: str, subject: str, length: int) -> None:
    chain_id, prev = uuid.uuid4(), None
    entries, contents = [], []
    for seq in range(length):
        names = {"id": f"{subject}-{seq}", "source": "shop", "specversion": "1.0", "type": "t", "datacontenttype": "text/plain"}
        attributes = encode({**names, "subject": subject, "time": "2026-01-01T00:00:00Z"})
        body, salt = b"body %d" % seq, sha256(b"%d" % seq).digest()
        members = {"v": "waxseal/event/v1", "hash": "sha-256", "tenant": tenant, "chain": chain_id.hex, "seq": seq}
        members |= {"prev": prev and prev.hex(), "at": 1767225600000000 + seq, "kind": "event"}
        members["pc"] = commitment(salt, attributes, body).hex()
        envelope = orjson.dumps(members, option=orjson.OPT_SORT_KEYS)
        hash_ = sha256(b"\x00" + envelope).digest()
        known = uuid.UUID(bytes=fingerprint(KEY, "shop", names["id"]))
        entries.append((chain_id, seq, prev, hash_, envelope, tenant, known))
        contents.append((chain_id, seq, attributes, body, salt, "shop", "t", subject, "2026-01-01T00:00:00Z"))
        prev = hash_
    head = (uuid.UUID(bytes=chain_key(KEY, subject)), tenant, subject, chain_id, length - 1, prev)
    conn.execute("INSERT INTO chain (key, tenant, subject, chain_id, seq, hash) VALUES (%s, %s, %s, %s, %s, %s)", head)
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO entry (chain_id, seq, prev_hash, hash, envelope, tenant, fingerprint)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            entries,
        )
        cursor.executemany(
            "INSERT INTO content (chain_id, seq, attributes, body, salt, source, type, subject, time)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            contents,
        )
