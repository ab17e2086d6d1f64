"""Convert images, as a folder or as people download them, to FFCV's .beton files."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ffcv_imagenet.config import WriteConfig
from ffcv_imagenet.names import shown
from ffcv_imagenet.options import parse_command
from ffcv_imagenet.script import run_script


def main(argv: Sequence[str]) -> None:
    """Write the data sets that the options ``argv`` ask for."""
    config, _ = parse_command(WriteConfig, argv, __doc__)

    # Imported here, so that --help and mistakes are answered without waiting for ffcv.
    from ffcv_imagenet.data.sources.find import describe, find_sources
    from ffcv_imagenet.data.write.parameters import resolve_parameters
    from ffcv_imagenet.data.write.splits import write_sources
    from ffcv_imagenet.data.write.subsets import choose_classes

    options = dataclasses.asdict(config.write)
    options |= options.pop("of_mode")
    others = {key: options.pop(key) for key in ("num_workers", "overwrite", "on_error")}
    splits, classes = options.pop("splits"), options.pop("classes")
    parameters = resolve_parameters(**options)
    root = Path(config.data.root).expanduser()
    names = Path(config.data.class_names).expanduser() if config.data.class_names else None
    sources = find_sources(root, splits, config.data.format, config.data.class_order, names)
    if classes is not None:
        sources = choose_classes(sources, classes)
    print(f"{shown(root)}: {describe(sources)}", flush=True)
    write_sources(sources, Path(config.out.dir).expanduser(), parameters, **others)


if __name__ == "__main__":
    run_script(main)
