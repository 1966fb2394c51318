"""`Sequential` and what goes into it, under the name of earlier editions: module 04 makes them in `layers`."""
from tinytorch.core.layers import BatchNorm1d, Dense, Dropout, Flatten, Identity, LayerNorm, Linear, Module, Parameter, Sequential

__all__ = ["BatchNorm1d", "Dense", "Dropout", "Flatten", "Identity", "LayerNorm", "Linear", "Module", "Parameter", "Sequential"]
