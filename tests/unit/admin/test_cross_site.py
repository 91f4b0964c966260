"""Requests that another site makes a browser send are told from our own pages' by what browsers say of them."""

import pytest

from ops.admin.access.cross_site import foreign, lacks_secret, origin_of

PUBLIC = "https://console.example"
LOCAL = "127.0.0.1:8421"


@pytest.mark.parametrize(
    ("headers", "public", "ours"),
    [
        ({"sec-fetch-site": "same-origin"}, PUBLIC, True),
        ({"sec-fetch-site": "same-origin"}, "", True),
        ({"sec-fetch-site": "same-origin", "origin": "null"}, PUBLIC, True),  # as browsers send under no-referrer
        ({"sec-fetch-site": "same-site"}, PUBLIC, False),
        ({"sec-fetch-site": "cross-site"}, PUBLIC, False),
        ({"sec-fetch-site": "none"}, PUBLIC, False),
        ({"sec-fetch-site": ""}, PUBLIC, False),
        ({"sec-fetch-site": "same-origin, cross-site"}, PUBLIC, False),
        ({"sec-fetch-site": "cross-site", "origin": PUBLIC}, PUBLIC, False),
        ({"origin": PUBLIC}, PUBLIC, True),
        ({"origin": "https://console.example:443"}, PUBLIC, False),  # no browser writes the default port
        ({"origin": PUBLIC}, "https://console.example:443/", True),
        ({"origin": "https://console.example:8443"}, "https://console.example:8443", True),
        ({"origin": "http://console.example"}, PUBLIC, False),
        ({"origin": "https://console.example.evil.example"}, PUBLIC, False),
        ({"origin": "https://evil.example", "host": "console.example"}, PUBLIC, False),
        ({"origin": f"http://{LOCAL}", "host": LOCAL}, PUBLIC, False),
        ({"origin": "null"}, PUBLIC, False),
        ({"origin": "null", "host": LOCAL}, "", False),
        ({}, PUBLIC, False),
        ({"host": LOCAL}, "", False),
        ({"referer": f"{PUBLIC}/t/acme"}, PUBLIC, False),
        ({"origin": f"http://{LOCAL}", "host": LOCAL}, "", True),
        ({"origin": "http://localhost:8421", "host": "localhost:8421"}, "", True),
        ({"origin": "http://[::1]:8421", "host": "[::1]:8421"}, "", True),
        ({"origin": "http://127.0.0.1:9999", "host": LOCAL}, "", False),
        ({"origin": "https://127.0.0.1:8421", "host": LOCAL}, "", False),
        ({"origin": "http://rebound.example:8421", "host": "rebound.example:8421"}, "", False),  # a name that leads here
        ({"origin": "http://192.0.2.7:8421", "host": "192.0.2.7:8421"}, "", False),
    ],
)
def test_a_request_that_changes_something_must_come_from_our_own_pages(
    headers: dict[str, str], public: str, ours: bool
) -> None:
    assert [ours] * 4 == [foreign(method, headers, public) is None for method in ("POST", "PUT", "PATCH", "DELETE")]
    assert [True] * 3 == [foreign(method, headers, public) is None for method in ("GET", "HEAD", "OPTIONS")]


@pytest.mark.parametrize(
    ("given", "lacks"), [("abc", False), ("abd", True), ("", True), (None, True), ("abcd", True), ("äbc", True)]
)
def test_what_only_pages_of_the_session_know_must_come_back_whole(given: str | None, lacks: bool) -> None:
    assert lacks == lacks_secret("abc", given)


def test_an_origin_is_written_as_browsers_write_it() -> None:
    written = ("HTTPS://Console.Example:443/path", "http://h:80", "http://[::1]:8421/")

    assert ["https://console.example", "http://h", "http://[::1]:8421"] == [origin_of(url) for url in written]
