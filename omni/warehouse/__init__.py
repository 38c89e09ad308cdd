"""The tenant's warehouse: contracts, loading, models, checks, versions, the published snapshot."""
