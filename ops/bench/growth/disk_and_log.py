"""Where the bytes of an event are: those of tables and indexes on disk, and those of write-ahead log by what they are for."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, make_url, text

from ops.errors import OpsError
from ops.runtime.db import transaction
from ops.servers.binaries import find_postgres
from ops.settings import environment
from pipeline.store.ledger import entries as ledger_entries

# Partitions count for their table, and what is stored apart of a row for the row's.
SIZES = text("""
    SELECT coalesce(parent.relname, class.relname) AS name, CAST(sum(pg_relation_size(class.oid)
      + CASE WHEN class.reltoastrelid <> 0 THEN pg_total_relation_size(class.reltoastrelid) ELSE 0 END) AS bigint) AS bytes
    FROM pg_class AS class LEFT JOIN pg_inherits ON inhrelid = class.oid LEFT JOIN pg_class AS parent ON parent.oid = inhparent
    WHERE class.relnamespace = 'public'::regnamespace AND class.relkind IN ('r', 'i')
    GROUP BY 1 HAVING sum(pg_relation_size(class.oid)) > 0""")
FILES = text("""
    SELECT pg_relation_filenode(class.oid) AS file, coalesce(parent.relname, owner.relname, class.relname) AS name
    FROM pg_class AS class LEFT JOIN pg_inherits ON inhrelid = class.oid LEFT JOIN pg_class AS parent ON parent.oid = inhparent
    LEFT JOIN pg_class AS owner ON owner.reltoastrelid = class.oid
    WHERE class.relkind IN ('r', 'i', 't') AND pg_relation_filenode(class.oid) IS NOT NULL""")
# A segment that is kept ready has no header: the program would take the size of segments from it.
SEGMENTS = text("""
    SELECT current_setting('data_directory'), pg_walfile_name(CAST(:began AS pg_lsn)),
      pg_walfile_name(CAST(:ended AS pg_lsn))""")
AT = text("SELECT CAST(pg_current_wal_flush_lsn() AS text), oid FROM pg_database WHERE datname = current_database()")

#: A record of the log: its bytes without and with full pages, and the file of its first page.
_RECORD: Final = re.compile(r"len \(rec/tot\): +(\d+)/ +(\d+),(?:.*?blkref #0: rel \d+/(\d+)/(\d+))?")


def bytes_per_event(engine: Engine) -> dict[str, float]:
    """The bytes on disk of each table and index that has any, divided by the number of entries."""
    with transaction(engine) as conn:
        entries = ledger_entries.count_by_heads(conn)
        return {row.name: row.bytes / entries for row in conn.execute(SIZES)}


def position(engine: Engine) -> tuple[str, int]:
    """Where the write-ahead log ends, and the number of the database."""
    with transaction(engine) as conn:
        place, number = conn.execute(AT).one()
        return place, number


def log_by_relation(engine: Engine, began: tuple[str, int]) -> Mapping[str, int]:
    """The bytes of write-ahead log since `began` by table and index, whole pages apart, read from its files."""
    ended, _ = position(engine)
    with transaction(engine) as conn:
        names = {row.file: row.name for row in conn.execute(FILES)}
        folder, *segments = conn.execute(SEGMENTS, {"began": began[0], "ended": ended}).one()
    data = Path(folder)
    command = [str(find_postgres(_version(data)) / "pg_waldump"), "--path", str(data / "pg_wal")]
    command += ["--start", began[0], "--end", ended, *segments]
    found: dict[str, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as dump:
        assert dump.stdout is not None
        assert dump.stderr is not None
        for line in dump.stdout:
            if record := _RECORD.search(line):
                record_bytes, all_bytes, database, file = record.groups()
                of_it = database is not None and int(database) == began[1]
                name = names.get(int(file), "other") if of_it else "transactions and others"
                found[name] = found.get(name, 0) + int(record_bytes)
                pages = f"{name}, whole pages"
                found[pages] = found.get(pages, 0) + int(all_bytes) - int(record_bytes)
        said = dump.stderr.read()
    if dump.returncode:
        raise OpsError(f"the write-ahead log of {make_url(engine.url).database} cannot be read: {said.strip()[-200:]}")
    return found


def _version(data: Path) -> str:
    return (data / "PG_VERSION").read_text(encoding="ascii").strip()
