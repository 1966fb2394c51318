"""A person's server in one class: as a sandboxed process on this machine or as a container."""
