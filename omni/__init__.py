"""Omni Pipelines: the domain code behind the flows. Nothing here imports Prefect."""
