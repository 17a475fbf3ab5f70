"""Tests of the audit: opening a run, reading the file, replaying it, the commands."""
