"""Files to networks and back: the released format, bundles, Hugging Face formats."""
