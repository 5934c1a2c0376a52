"""Many clips, safely on disk: prompt files, plans, names, the manifest, records, files."""
