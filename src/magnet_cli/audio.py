"""Reading and writing audio files, so that a file is either there and complete, or not there.

`write_atomic` is what every file this package leaves behind goes through, whatever is in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from magnet_cli.audio.atomic import check_writable
from magnet_cli.audio.formats import check_format
from magnet_cli.naming import Target
from magnet_cli.options.output import Subtype

# -- any file ---------------------------------------------------------------------------------------------------------


def check_targets(targets: Sequence[Target], subtype: Subtype, *, overwrite: bool) -> None:
    """Raise UsageError for a format that cannot be, OutputError for a file that exists or cannot be written."""
    for target in targets:
        check_format(target.audio, subtype)
    check_writable([path for target in targets for path in target.files], overwrite=overwrite)
