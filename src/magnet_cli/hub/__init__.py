"""Which models exist, which are on this machine, and how the others are downloaded. Imports no torch."""
