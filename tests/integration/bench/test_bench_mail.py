"""A small `bench mail`, on servers that run already: it measures what it claims to."""

from types import SimpleNamespace

from ops.bench import mail
from ops.bench.mail import _Bench
from support.mail.dovecot import private_dovecot


def test_it_measures_one_mailbox_a_large_mail_and_some_that_hang(forks, servers, database, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(mail, "LARGE", 600_000)
    monkeypatch.setattr(mail, "EACH", 2)
    monkeypatch.setattr(mail, "START", 0.0)
    with private_dovecot() as box:
        bench = _Bench(SimpleNamespace(database_url=database.url, amqp_url=servers.amqp_url), tmp_path, box)
        one = bench.one_mailbox(40)
        large = bench.large_mail()
        hanging = bench.hanging(10)
        bench.close()

    assert 40 == one["mails"]
    assert one["mails_per_s"] > 0
    assert 0 < large["large_rss_mib"] < 250
    assert (10, 1) == (hanging["mailboxes"], hanging["of_which_hang"])
    assert [(40 + 1 + 2 * 9 * 2,)] == database.rows("SELECT count(*) FROM entry")
    assert [(True,)] == database.rows("SELECT bool_or(blob IS NOT NULL) FROM content")
