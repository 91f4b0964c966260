from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anyio import CapacityLimiter
from sqlalchemy.exc import OperationalError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from ops.errors import OpsError
from ops.settings import Settings
from schemas.access import EVERYWHERE, Principal, Role
from workers.console.app import make_app
from workers.console.call import Call, Console, Refused, carry_out, permit
from workers.console.middleware import MOST_BODY, POLICY
from workers.console.pace import Pace

ADMIN = Principal("ann", {EVERYWHERE: "admin"}, "token", "t1")


def make_client(
    answer: Callable[[Call], Response], principal: Principal = ADMIN, url: str = "", pace: Pace | None = None
) -> TestClient:
    async def authenticate(_request: Request) -> Principal:
        return principal

    nothing: Any = None
    console = Console(Settings(console_url=url), nothing, nothing, CapacityLimiter(1), authenticate, pace=pace or Pace())

    async def asked(request: Request) -> Response:
        return await carry_out(console, request, "viewer", answer, await request.body())

    routes = [Route(path, asked, methods=["GET", "POST"]) for path in ("/api/v1/x", "/x", "/t/{tenant}")]
    return TestClient(make_app(console, routes), raise_server_exceptions=False)


def raising(error: Exception) -> Callable[[Call], Response]:
    def answer(_call: Call) -> Response:
        raise error

    return answer


@pytest.fixture
def client() -> Iterator[TestClient]:
    with make_client(lambda call: PlainTextResponse(f"{call.principal.who} {len(call.body)}")) as client:
        yield client


def test_every_answer_has_an_id_and_the_headers_that_protect_pages(client: TestClient) -> None:
    for path in ("/x", "/nowhere", "/api/v1/nowhere", "/static/nothing.css"):
        answer = client.get(path)

        assert answer.headers["x-request-id"]
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in answer.headers


def test_a_public_address_by_https_is_kept_to_https() -> None:
    with make_client(lambda _: PlainTextResponse(""), url="https://console.example") as client:
        assert "max-age" in client.get("/x").headers["strict-transport-security"]


@pytest.mark.parametrize(("given", "taken"), [("abc-1", True), ("a b", False), ("x" * 129, False), ("<script>", False)])
def test_a_request_id_is_taken_if_it_is_harmless(client: TestClient, given: str, taken: bool) -> None:
    assert (client.get("/x", headers={"X-Request-ID": given}).headers["x-request-id"] == given) is taken


def test_a_body_may_have_four_mebibytes_whether_announced_or_not(client: TestClient) -> None:
    def pieces(count: int) -> Iterator[bytes]:
        return (b"x" * 65536 for _ in range(count))

    assert client.post("/x", content=b"x" * MOST_BODY).text == f"ann {MOST_BODY}"
    assert client.post("/x", content=b"x" * (MOST_BODY + 1)).status_code == 413
    assert client.post("/x", content=pieces(MOST_BODY // 65536)).status_code == 200
    assert client.post("/x", content=pieces(MOST_BODY // 65536 + 1)).status_code == 413


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (Refused(422, "invalid", "no such day"), 422, "invalid"),
        (OpsError("there is no such thing"), 409, "refused"),
        (OperationalError("SELECT", {}, ConnectionError("secret")), 500, "internal"),
        (ValueError("secret"), 500, "internal"),
    ],
)
def test_an_error_is_answered_as_a_problem_or_as_a_page_and_tells_no_secret(error: Exception, status: int, name: str) -> None:
    with make_client(raising(error)) as client:
        problem, page = client.get("/api/v1/x"), client.get("/x")

    assert (problem.status_code, page.status_code) == (status, status)
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["type"] == f"urn:waxseal:problem:{name}"
    assert problem.json()["request_id"] == problem.headers["x-request-id"]
    assert page.headers["content-type"].startswith("text/html")
    assert "secret" not in problem.text + page.text


def test_who_does_not_see_a_tenant_is_told_that_there_is_none() -> None:
    one = Principal("bob", {"acme": "viewer"}, "token", "t2")
    with make_client(lambda call: PlainTextResponse(call.tenant), one) as client:
        assert client.get("/t/acme").text == "acme"
        assert client.get("/t/other").status_code == 404
        assert client.get("/x").status_code == 403


@pytest.mark.parametrize(
    ("grants", "role", "tenant", "status"),
    [
        ({"*": "admin"}, "admin", "acme", None),
        ({"*": "viewer"}, "operator", "acme", 403),
        ({"*": "viewer", "acme": "operator"}, "operator", "acme", None),
        ({"*": "viewer", "acme": "operator"}, "operator", "other", 403),
        ({"acme": "admin"}, "viewer", "other", 404),
        ({"acme": "admin"}, "viewer", None, 403),
        ({}, "viewer", "acme", 404),
        ({}, "viewer", None, 403),
    ],
)
def test_a_role_holds_for_one_tenant_or_for_all(
    grants: dict[str, Role], role: Role, tenant: str | None, status: int | None
) -> None:
    principal = Principal("ann", grants, "session", "s1")

    if status is None:
        permit(principal, role, tenant)
        return
    with pytest.raises(Refused) as refused:
        permit(principal, role, tenant)
    assert refused.value.status == status


def test_reading_is_paced_and_acting_is_not() -> None:
    class Counted(Pace):
        asked = 0

        async def run(self, *given: Any) -> Any:
            self.asked += 1
            return await super().run(*given)

    pace = Counted()
    with make_client(lambda _call: PlainTextResponse("done"), pace=pace) as client:
        answers = [client.get("/x"), client.post("/x"), client.get("/api/v1/x")]

    assert [200] * 3 == [each.status_code for each in answers]
    assert 2 == pace.asked
