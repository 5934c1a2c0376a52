"""How notes become sound: instruments, the soundfonts that have them, synthesis of our own, and effects."""
