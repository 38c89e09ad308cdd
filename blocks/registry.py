"""The registry of trained models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, model_validator

if TYPE_CHECKING:
    from omni.ml.registry import Registry


class ModelRegistry(Block):
    """Where a tenant's models are logged and registered. Save it under the tenant's name.

    Example:
        Load a saved registry and open it:
        ```python
        from blocks.registry import ModelRegistry

        saved = ModelRegistry.load("BLOCK_NAME")
        registry = saved.registry()
        ```
    """

    _block_type_name = "Omni Model Registry"
    _block_type_slug = "omni-model-registry"
    _documentation_url = "https://mlflow.org/docs/latest/ml/model-registry/"  # type: ignore[assignment]

    # What is refused may hold a password.
    model_config = ConfigDict(hide_input_in_errors=True)

    tracking_uri: str = Field(
        ...,
        pattern=r"^(https?|sqlite|postgresql(\+\w+)?)://",
        description="MLflow tracking server or its database, such as http://mlflow.example:5000. "
        "A user may be named in it, postgresql://mlflow@db/mlflow; the password has a field of its own.",
    )
    password: SecretStr | None = Field(None, description="Password of the user named in the address.")
    artifacts: Path = Field(..., description="Folder of the models' files.")

    @model_validator(mode="after")
    def _no_password_in_the_clear(self) -> Self:
        if self.tracking_uri.startswith("sqlite"):
            if self.password is not None:
                raise ValueError("a SQLite file takes no password")
            return self
        before, at, _ = self.tracking_uri.partition("://")[2].rpartition("@")
        if (at and ":" in before) or re.search(r"[?&]password=", self.tracking_uri, re.IGNORECASE):
            raise ValueError("tracking_uri holds a password, which all would see; use the field password")
        if self.password is not None and not at:
            raise ValueError("a password needs a user in tracking_uri, such as postgresql://mlflow@db/mlflow")
        return self

    def registry(self) -> Registry:
        """Open the registry."""
        from omni.ml.registry import Registry

        address = self.tracking_uri
        if self.password is not None:
            user, _, place = address.rpartition("@")
            address = f"{user}:{quote(self.password.get_secret_value(), safe='')}@{place}"
        return Registry(tracking_uri=address, artifacts=self.artifacts)
