"""The service that takes jobs over HTTP, keeps them and has workers carry them out."""
