"""What a user may choose. In: command line, prompt file, Python. Out: validated dataclasses. Imports no torch."""
