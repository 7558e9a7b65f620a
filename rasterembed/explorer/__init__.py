"""The explorer: a page over a store, and the service behind it."""
