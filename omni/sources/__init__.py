"""Sources: one module per vendor, from its pages to staged Parquet with the contracts' columns and types.

`extract.extract` is the way in. It writes only its own folder, so streams may be read in parallel; one
writer loads the folders afterwards.
"""
