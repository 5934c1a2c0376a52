"""Files and folders: written whole or not at all, kept within their folder, read within bounds. Imports no torch."""
