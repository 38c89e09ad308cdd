"""Webhooks both ways: vendors' deliveries into an inbox, our events out of an outbox."""
