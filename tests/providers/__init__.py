"""Small but real providers of identities on loopback, for tests: OpenID Connect on oauthlib's server, and an LTI 1.3 platform.

Each signs with a key of its own, publishes it, and can be told to lie in one way.
"""
