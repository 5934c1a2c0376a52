"""How notes become sound: instruments, the soundfonts that have them, synthesizers, and effects."""
