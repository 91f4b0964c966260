"""Who may do what by the console and the API."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

#: viewer: reads all but content; operator: acts on what is in flight, and reveals content; admin: changes what is configured.
Role = Literal["viewer", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)  # each may do what those before it may
EVERYWHERE: Final = "*"  # in place of a tenant's name: all of them, and what belongs to none

Means = Literal["token", "session"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, as the audit records it. As text it is `who`, so that notes can name it.

    `principal` is the id of the token or the session, `role` the one that it has where it acts.
    """

    who: str
    means: Literal["cli", "token", "session"] = "cli"
    principal: str = ""
    role: str = ""
    address: str = ""
    request_id: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return self.who


By = str | Actor  # a name alone for what the command line does


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a program by a token, or a person by a session.

    `who` is what the audit names; `grants` are roles by tenant, or by `EVERYWHERE`; `id` is that of the token or session.
    `csrf` is the secret that the forms of a session must send back; None for a token. `fresh`: it logged in a few minutes ago.
    """

    who: str
    grants: Mapping[str, Role]
    means: Means
    id: str
    csrf: str | None = None
    fresh: bool = True

    def role_in(self, tenant: str) -> Role | None:
        """The role for a tenant, or for `EVERYWHERE`; None: for this principal it does not exist."""
        given = [self.grants[where] for where in (tenant, EVERYWHERE) if where in self.grants]
        return max(given, key=ROLES.index, default=None)

    def may(self, role: Role, tenant: str) -> bool:
        """Whether it has at least this role for the tenant, or for `EVERYWHERE`."""
        has = self.role_in(tenant)
        return has is not None and ROLES.index(has) >= ROLES.index(role)

    @property
    def tenant(self) -> str | None:
        """The only tenant that it sees; None when it sees several, or all."""
        return next(iter(self.grants)) if len(self.grants) == 1 and EVERYWHERE not in self.grants else None
