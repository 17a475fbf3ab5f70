"""Tests of the person's wallet: vault, recovery, linking, sending, collecting, commands."""
