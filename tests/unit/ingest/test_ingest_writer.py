from ops.runtime.db import make_engine
from support.blobs import NO_BLOBS
from workers.ingest.writer import Writer


def test_a_writer_that_began_without_its_database_is_not_in_trouble_for_ever() -> None:
    """The pulse says whether Postgres answers; an idle process writes no batch that would end a trouble of the writer."""
    engine = make_engine("postgresql://nobody@127.0.0.1:1/nothing")
    writer = Writer(engine, None, NO_BLOBS, lambda: False)  # type: ignore[arg-type]
    writer.load()
    writer.close()
    engine.dispose()

    assert writer.trouble is None
