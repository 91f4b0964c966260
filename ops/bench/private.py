"""A configured system on private servers, for a benchmark to put under load."""

from pathlib import Path

from cryptography.fernet import Fernet

from ops.apply import apply_file
from ops.migrate import migrate
from ops.servers import PrivateServers
from ops.settings import Settings, environment
from pipeline.addresses import LOOPBACK


def configure(servers: PrivateServers, folder: Path, config: str) -> dict[str, str]:
    """Migrates, applies `config` and gives the environment of a process that works there."""
    migrate(servers.database_url)
    key = Fernet.generate_key().decode()
    path = folder / "bench.yaml"
    path.write_text(config, encoding="utf-8")
    apply_file(path, Settings(database_url=servers.database_url, keys=key))
    return environment() | {
        "WAXSEAL_DATABASE_URL": servers.database_url,
        "WAXSEAL_AMQP_URL": servers.amqp_url,
        "WAXSEAL_KEYS": key,
        "WAXSEAL_LOG_LEVEL": "warning",
        "WAXSEAL_ALLOW_NETWORKS": LOOPBACK,
    }
