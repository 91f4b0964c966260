"""The settings of logins: what each group may do, and what is refused at the start."""

import pytest

from ops.console_settings import granted, openid_policy, read_grants
from ops.errors import Misconfigured
from ops.settings import Settings, load_settings

GRANTS = read_grants("ops=operator@acme, ops=viewer, cn=admins=admin, support=viewer@acme,support=operator@other")


@pytest.mark.parametrize(
    ("groups", "roles"),
    [
        ([], {}),
        (["nobody"], {}),
        (["ops"], {"acme": "operator", "*": "viewer"}),
        (["cn=admins"], {"*": "admin"}),
        (["support"], {"acme": "viewer", "other": "operator"}),
        (["support", "ops"], {"acme": "operator", "*": "viewer", "other": "operator"}),
        (["ops", "cn=admins"], {"acme": "operator", "*": "admin"}),
    ],
)
def test_somebody_in_several_groups_has_the_highest_role_in_each_place(groups: list[str], roles: dict[str, str]) -> None:
    assert roles == granted(GRANTS, groups)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WAXSEAL_OIDC_GRANTS", "ops"),
        ("WAXSEAL_OIDC_GRANTS", "ops=root"),
        ("WAXSEAL_OIDC_GRANTS", "=admin"),
        ("WAXSEAL_OIDC_GRANTS", "ops=admin@"),
        ("WAXSEAL_OIDC_GRANTS", "ops=admin@*"),
        ("WAXSEAL_OIDC_GRANTS", "ops=admin@Acme"),
        ("WAXSEAL_OIDC_ALGORITHMS", "none"),
        ("WAXSEAL_OIDC_ALGORITHMS", "HS256"),
        ("WAXSEAL_OIDC_ALGORITHMS", ","),
        ("WAXSEAL_OIDC_ISSUER", "id.example"),
        ("WAXSEAL_OIDC_ISSUER", "ftp://id.example"),
        ("WAXSEAL_OIDC_ISSUER", "https://id.example?tenant=1"),
        ("WAXSEAL_CONSOLE_PROXIES", "proxy.example"),
        ("WAXSEAL_CONSOLE_URL", "console.example"),
        ("WAXSEAL_CONSOLE_URL", "https://console.example/under"),
    ],
)
def test_a_setting_that_would_let_in_nobody_or_anybody_stops_the_process(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(Misconfigured, match=f"^{variable}: "):
        load_settings()


def test_other_grants_end_the_sessions_that_the_former_ones_began() -> None:
    before = Settings(oidc_issuer="https://id.example", oidc_client="waxseal", oidc_grants="ops=admin")
    same = before.model_copy(update={"console_theme": "dark"})
    after = before.model_copy(update={"oidc_grants": "ops=viewer"})

    assert openid_policy(before) == openid_policy(same)
    assert openid_policy(before) != openid_policy(after)
    assert openid_policy(Settings()) is None
