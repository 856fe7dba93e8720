"""Studies: a grid of settings and seeds, run cell by cell, and what it says about claims."""
