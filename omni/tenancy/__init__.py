"""Tenants: the companies this installation works for, one file each under `data/tenants/`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from omni import yamlfile
from omni.errors import ConfigError
from omni.settings import PROJECT, settings
from omni.yamlfile import Declaration

BUNDLED = PROJECT / "omni" / "sandbox"
"""What the sandbox companies bring along."""


class Tenant(Declaration):
    """One company: its zone, currency, sources and documents.

    `company` names the sandbox company that stands in for every vendor without a connected account.
    """

    tenant: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    title: str
    timezone: str
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    company: str | None = None
    sources: dict[str, list[str]]
    documents: str | None = Field(
        None, description="folder of Markdown; {bundled} and {real_data} stand for those folders"
    )

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"unknown time zone {value!r}, for example Europe/Berlin") from None
        return value

    @property
    def home(self) -> Path:
        """Folder of the tenant's state."""
        return settings().tenant_home(self.tenant)

    @property
    def documents_folder(self) -> Path | None:
        """Where the tenant's documents lie."""
        if self.documents is None:
            return None
        return Path(self.documents.format(bundled=BUNDLED, real_data=settings().real_data))


@lru_cache(maxsize=4)
def _tenants(folder: Path) -> dict[str, Tenant]:
    return yamlfile.load_folder(folder, Tenant, "tenant")


def tenants() -> dict[str, Tenant]:
    """All tenants by name."""
    return _tenants(settings().data / "tenants")


def get(name: str) -> Tenant:
    """One tenant.

    Raises:
        ConfigError: there is none of that name; the message lists those that exist.
    """
    known = tenants()
    if name not in known:
        raise ConfigError(
            f"Unknown tenant {name!r}. Known: {', '.join(known) or 'none'}. "
            f"A tenant is a file {settings().data / 'tenants'}/<name>.yml."
        )
    return known[name]
