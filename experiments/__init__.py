"""Questions asked of the toolkit: the demo, baselines, benchmarks and reports, on public data.

The only room that may put every party in one process, and the only one that may seed the noise;
whatever a seed has touched is stamped NOT PRIVATE.
"""
