"""What models exist, which are on this machine, and how the others are fetched. Imports no torch."""
