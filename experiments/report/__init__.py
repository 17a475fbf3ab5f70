"""What a run found, as a page for people and as figures for machines."""
