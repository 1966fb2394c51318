"""`Dense` under the name of earlier editions: module 04 makes it in `layers`."""
from tinytorch.core.layers import Dense, Linear

__all__ = ["Dense", "Linear"]
