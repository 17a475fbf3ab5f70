"""Audit by replay: a data holder opens a run's pinned prefix; the auditor takes every decision anew, offline."""
