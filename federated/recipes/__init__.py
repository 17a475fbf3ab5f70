"""Training recipes behind one small interface: what is released each round, what it costs, how the next step is taken."""
