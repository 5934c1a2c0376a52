"""Measures of finished clips: of the sound alone, of the sound against its text, and of many clips together."""
