"""The older name of what module 09 makes: `from tinytorch.core.cnn import Conv2D`."""
from tinytorch.core.spatial import *  # noqa: F403
