"""Benchmarks: each measures figures the project promises, beside the same work done by other ways in the same run."""
