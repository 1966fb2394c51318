"""What watches a site: alert rules with their tests, dashboards, and the image of the programs."""
