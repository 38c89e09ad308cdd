"""The registry of trained models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field

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

    tracking_uri: str = Field(
        ...,
        pattern=r"^(https?|sqlite|postgresql(\+\w+)?)://",
        description="MLflow tracking server or its database, such as http://mlflow.example:5000.",
    )
    artifacts: Path = Field(..., description="Folder of the models' files.")

    def registry(self) -> Registry:
        """Open the registry."""
        from omni.ml.registry import Registry

        return Registry(tracking_uri=self.tracking_uri, artifacts=self.artifacts)
