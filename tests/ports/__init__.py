"""Tiny environments and their ports. Every port takes ``bug``: None (the equal port), or a name listed in bugs.py."""
