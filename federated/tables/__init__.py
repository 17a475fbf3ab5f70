"""Where a data holder's rows come from (CSV, Parquet, a query), and the one set of checks that all of them pass."""
