"""Usage events: declared, collected, kept on disk before they are acknowledged, loaded once, shown live."""
