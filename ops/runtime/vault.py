"""Secrets at rest: Fernet, with rotation."""

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from ops.errors import OpsError


class Vault:
    """Encrypts under the newest key and decrypts what any of `keys` (newest first) encrypted."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise OpsError("no key for secrets: set WAXSEAL_KEYS or WAXSEAL_KEYS_FILE (make one with `waxseal key`)")
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise OpsError("WAXSEAL_KEYS holds something that is not a Fernet key (32 bytes, base64url)") from None

    def encrypt(self, secret: bytes) -> bytes:
        """The encrypted secret, which may be stored."""
        return self._fernet.encrypt(secret)

    def decrypt(self, token: bytes) -> bytes:
        """The secret in plain text; raises `OpsError` when none of the keys made `token`."""
        try:
            return self._fernet.decrypt(bytes(token))
        except InvalidToken:
            raise OpsError("a stored secret was encrypted under a key that WAXSEAL_KEYS does not hold") from None
