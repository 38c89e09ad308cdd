"""The control database: what the installation must remember beside the tenants' data.

Keys of data subjects, access tokens, received webhooks, subscriptions and deliveries, what was written back.
SQLite in the state folder by default, PostgreSQL by `OMNI_CONTROL_URL`.
"""
