"""Training recipes behind one small interface: what a round releases, what it costs, how the next step is taken."""
