"""Backups of a deployed site: one file that holds all its data, checked when it is made, and put back by one command.

    tinytorch-backup create | list | verify FILE | restore FILE [--replace] | schemas [--same-as FILE] | check

Runs as root on the host itself, with the system's Python and nothing else, so that a host whose containers do not start can
still be restored. `make deploy` copies this folder there, and the host has nothing else of the product's code: it imports the
standard library and, relatively, itself. Its settings are in /etc/tinytorch/backup.json, which `make deploy` writes.

A live SQLite database is copied by SQLite's own online backup, databases before the files that they speak of; one on a PostgreSQL
server by that server's clients, which must be as new as it is. Homes belong to students, who may exchange a file for a link at any
moment: they are walked through open folders and no link is ever followed.
"""
