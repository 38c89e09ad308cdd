"""Where tables go: vendors that get segments and scores back, and databases that get published tables."""
