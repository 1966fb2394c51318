"""classes.yml and the rosters: read with their lines, checked, and handed on as Python objects."""
