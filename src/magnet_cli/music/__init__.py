"""Musical time: the length of bars, the tempo of a finished sound, and the beat that a loop begins with."""
