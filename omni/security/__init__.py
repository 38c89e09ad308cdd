"""Keys and keyed hashes: how personal values are kept from readers who only need to join them."""
