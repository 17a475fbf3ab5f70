"""Consent as values and pure rules: record, seal and signature, lane, view, gate, commitment, budget."""
