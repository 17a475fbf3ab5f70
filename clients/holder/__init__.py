"""The data holder's node: settings and policy, lane copy, gate, privacy ledger, releases, scoring, replay."""
