"""A local server that speaks the vendors' protocols, seeded with a company's data; faults on request."""
