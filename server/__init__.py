"""Programs of those who coordinate: rounds and aggregation, and the consent registry.

Nothing in this room ever holds a row, an update without noise or masks, or the content of a consent record.
Imports `federated` and `privacy`, never `clients`.
"""
