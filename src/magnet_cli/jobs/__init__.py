"""Many clips, written safely to the disk.

In: prompt files and jobs. Out: plans, file names, the manifest, records and the files of finished clips.
"""
