"""The images of a site: what is in them (Dockerfile), how they are built, listed and carried. Standard library only."""
