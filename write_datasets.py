"""Convert an image folder (train/ and val/, one folder per class) to FFCV's .beton files."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ffcv_imagenet.options import parse, run_script


def main(argv: Sequence[str]) -> None:
    """Write the data sets that the options ``argv`` ask for."""
    # Imported here, because every worker process imports this file again and needs neither ffcv nor torch.
    from ffcv_imagenet.config import WriteConfig
    from ffcv_imagenet.data.writer import resolve_parameters, write_splits

    config = parse(WriteConfig, argv, __doc__)
    options = dataclasses.asdict(config.write)
    splits, num_workers, overwrite = (options.pop(key) for key in ("splits", "num_workers", "overwrite"))
    write_splits(
        Path(config.data.root).expanduser(),
        Path(config.out.dir).expanduser(),
        splits,
        resolve_parameters(**options),
        num_workers,
        overwrite,
    )


if __name__ == "__main__":
    run_script(main)
