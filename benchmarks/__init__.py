"""How fast optogram is, against a plain way of doing the same."""
