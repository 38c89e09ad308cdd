"""Metrics, their rollups, and what is drawn from them."""
