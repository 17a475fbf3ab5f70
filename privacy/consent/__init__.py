"""Consent as values and pure rules: the record, its seal and signature, the lane, the view, the gate, the commitment."""
