"""From a module's source to everything else: framework files, notebooks, editions, and the checks of a module."""
