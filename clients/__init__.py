"""Programs of those who hold something.

`clients.holder` is the data holder's node: lane, gate, privacy ledger, trainer. `clients.wallet` is the person's
wallet. Rows, keys and consents never leave this room except as sealed records and noisy, masked sums.
Imports `federated` and `privacy`, never `server`.
"""
