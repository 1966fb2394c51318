"""A site served to others: its services as a Compose file, HTTPS, health, backups, monitoring."""
