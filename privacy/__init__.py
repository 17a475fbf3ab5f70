"""Rules and mathematics of consent and of differential privacy.

An auditor can read this room alone: pure functions over frozen values. Nothing here knows Flower, torch,
a clock, a socket, a file or shared randomness; time and chance arrive as arguments.

`privacy.consent` holds the record, its seal and signature, the append-only lane and the gate; `privacy.secure_sum`
the masks under which data holders' integers add up. The modules beside them hold Gaussian and Rényi accounting, noise
and the fixed-point grid.
"""
