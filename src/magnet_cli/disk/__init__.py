"""Files and folders: written completely or not at all, kept within their folder, and read within limits.

In: contents to write, and paths of files that strangers may have written. Out: complete files; text and JSON. Imports
no torch.
"""
