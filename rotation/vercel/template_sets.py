"""Ready sets of templates, by name, for what PostgreSQL providers push under many names at once.

The URLs ask for TLS by `sslmode=require`, but for those that say otherwise. `PGPORT` stands beside the hosts because libpq has no other
way to learn of a port; a pooled endpoint and its server are told apart by host, and their ports should be the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rotation.model import SecretTemplate

if TYPE_CHECKING:
    from collections.abc import Mapping

_DIRECT = "postgresql://{username}:{password}@{host}:{port}/{database}"
_POOLED = "postgresql://{username}:{password}@{pooled.host}:{pooled.port}/{database}"
_TLS = "?sslmode=require"
_PARTS = (
    SecretTemplate("PGUSER", "{username}"),
    SecretTemplate("PGDATABASE", "{database}"),
    SecretTemplate("PGPASSWORD", "{password}"),
    SecretTemplate("POSTGRES_USER", "{username}"),
    SecretTemplate("POSTGRES_PASSWORD", "{password}"),
    SecretTemplate("POSTGRES_DATABASE", "{database}"),
)

TEMPLATE_SETS: Mapping[str, tuple[SecretTemplate, ...]] = {
    "database-url": (SecretTemplate("DATABASE_URL", _DIRECT + _TLS),),
    "postgres": (
        SecretTemplate("DATABASE_URL", _DIRECT + _TLS),
        SecretTemplate("POSTGRES_URL", _DIRECT + _TLS),
        SecretTemplate("POSTGRES_URL_NO_SSL", _DIRECT),
        SecretTemplate("POSTGRES_HOST", "{host}"),
        SecretTemplate("PGHOST", "{host}"),
        SecretTemplate("PGPORT", "{port}"),
        *_PARTS,
    ),
    "postgres-pooled": (
        SecretTemplate("DATABASE_URL", _POOLED + _TLS),
        SecretTemplate("DATABASE_URL_UNPOOLED", _DIRECT + _TLS),
        SecretTemplate("POSTGRES_URL", _POOLED + _TLS),
        SecretTemplate("POSTGRES_URL_NON_POOLING", _DIRECT + _TLS),
        SecretTemplate("POSTGRES_PRISMA_URL", _POOLED + _TLS + "&pgbouncer=true&connect_timeout=15"),
        SecretTemplate("POSTGRES_URL_NO_SSL", _POOLED),
        SecretTemplate("POSTGRES_HOST", "{pooled.host}"),
        SecretTemplate("PGHOST", "{pooled.host}"),
        SecretTemplate("PGHOST_UNPOOLED", "{host}"),
        SecretTemplate("PGPORT", "{pooled.port}"),
        *_PARTS,
    ),
}
"""`database-url`: one URL. `postgres`: the usual names, all on the server itself. `postgres-pooled`: the usual names of a provider with a
connection pooler, which must be published as the endpoint `pooled`.
"""
