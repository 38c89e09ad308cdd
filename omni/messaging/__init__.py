"""Messages that leave the house: kept in an outbox, sent by a transport."""
