"""Convert an image folder (train/ and val/, one folder per class) to FFCV's .beton files."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ffcv_imagenet.config import WriteConfig
from ffcv_imagenet.options import parse
from ffcv_imagenet.script import run_script


def main(argv: Sequence[str]) -> None:
    """Write the data sets that the options ``argv`` ask for."""
    config = parse(WriteConfig, argv, __doc__)

    # Imported here, so that --help and mistakes are answered without waiting for ffcv.
    from ffcv_imagenet.data.write.parameters import resolve_parameters
    from ffcv_imagenet.data.write.splits import write_splits

    options = dataclasses.asdict(config.write)
    options |= options.pop("of_mode")
    others = {key: options.pop(key) for key in ("num_workers", "overwrite", "on_error")}
    write_splits(
        Path(config.data.root).expanduser(),
        Path(config.out.dir).expanduser(),
        options.pop("splits"),
        resolve_parameters(**options),
        **others,
    )


if __name__ == "__main__":
    run_script(main)
