"""Tests of the data holder's node and what it keeps."""
