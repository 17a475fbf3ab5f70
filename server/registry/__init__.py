"""The consent registry: append-only lanes of sealed records that it cannot read."""
