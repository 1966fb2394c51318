"""The hub: classes.yml becomes groups, roles, services, servers and pages of a JupyterHub with nbgrader and ngshare."""
