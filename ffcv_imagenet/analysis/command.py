"""The command line of the analysis."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffcv_imagenet.analysis.measurement import DataSet, DataSets, Measured, Measurement, Need
from ffcv_imagenet.analysis.measurements import MEASUREMENTS
from ffcv_imagenet.names import shown
from ffcv_imagenet.options import COMMAND_LINE, Given, collect
from ffcv_imagenet.script import OneLineParser

if TYPE_CHECKING:
    from ffcv_imagenet.analysis.subject import Subject

#: Sections of ffcv_imagenet.train whose options say how images are prepared and where it computes.
_SECTIONS = ("data", "model", "validation", "dist", "training.precision")
_ALL = "all"


def main(argv: Sequence[str]) -> None:
    """``python -m ffcv_imagenet.analysis NAME ...``; the same call on every rank.

    Raises:
        ValueError, FileNotFoundError: a user's mistake.
    """
    arguments, measurements, given = _parse(argv)
    sets = DataSets(DataSet.read(arguments.data), DataSet.read(arguments.train_data) if arguments.train_data else None)
    possible = _possible(measurements, sets, is_all=arguments.name == _ALL)

    from ffcv_imagenet.config import TrainConfig  # noqa: F401 (checks the given options before torch is imported)
    from ffcv_imagenet.distributed import find_world, process_group

    world = find_world(str(given.values.get("dist.device", "auto")))
    subjects = [(run, True) for run in arguments.run or ()] + [(arguments.weights, False)] * bool(arguments.weights)

    def load(place: Path, is_run: bool) -> Subject:
        from ffcv_imagenet.analysis.subject import load_subject

        out = arguments.out / place.name if arguments.out and len(subjects) > 1 else arguments.out
        return load_subject(
            place, given, world, is_run=is_run, data=arguments.data, out=out, class_order=arguments.class_order
        )

    from ffcv_imagenet.analysis.folders import opened

    places = [place for measurement in possible.values() for place in measurement.places()]
    with (
        process_group(world, float(given.values.get("dist.timeout_minutes", 10))),
        opened(places, world) as others,
    ):
        sets = dataclasses.replace(sets, others=others)
        chosen = _inform(possible, [lambda s=s: load(*s) for s in subjects], sets)  # type: ignore[misc]
        measured: dict[str, list[Measured]] = {name: [] for name in chosen}
        folders = []
        for place, is_run in subjects:
            subject = load(place, is_run)
            folders.append(subject.folder)
            for name, results in _measure(subject, sets, chosen, ["analysis", *argv], again=arguments.again).items():
                measured[name].append(Measured(subject.name, results))
            del subject
        if world.is_main:
            _tell(chosen, measured, folders, arguments.out)


def _inform(
    measurements: Mapping[str, Measurement], subjects: Sequence[Callable[[], Subject]], sets: DataSets
) -> dict[str, Measurement]:
    """The measurements, those that want it with what all subjects predict for the validation images."""
    if not any(measurement.wants_predictions for measurement in measurements.values()):
        return dict(measurements)
    from ffcv_imagenet.analysis.outputs import KeptRows, observe

    need, predictions = Need(sets.val.path, "logits"), []
    for load in subjects:
        subject = load()
        rows = observe(subject, sets.val, [need])[need]
        assert isinstance(rows, KeptRows)
        predictions.append(rows.rows.values.argmax(axis=1))
        world = subject.world
        del subject
    found = {}
    for name, measurement in measurements.items():
        try:
            found[name] = measurement.informed(predictions) if measurement.wants_predictions else measurement
        except ValueError as error:
            from ffcv_imagenet.distributed import only_on_main

            raise only_on_main(world, error) from None
    return found


def _possible(measurements: Mapping[str, Measurement], sets: DataSets, *, is_all: bool) -> dict[str, Measurement]:
    """The measurements that the data allow; raises ValueError where a single one was asked for that they don't."""
    chosen = {}
    for name, measurement in measurements.items():
        reason = measurement.missing(sets)
        if reason is None:
            chosen[name] = measurement
        elif not is_all:
            raise ValueError(reason)
        else:
            print(f"{name} is left out: {reason}", file=sys.stderr)
    return chosen


def _measure(
    subject: Subject, sets: DataSets, chosen: Mapping[str, Measurement], command: Sequence[str], *, again: bool
) -> dict[str, dict[str, Any]]:
    """The results of all measurements on one subject, those on disk where they are of the same inputs."""
    from ffcv_imagenet.analysis import results as files
    from ffcv_imagenet.analysis.outputs import observe
    from ffcv_imagenet.distributed import on_main, only_on_main

    done, todo, wanted = {}, {}, {}
    for name, measurement in chosen.items():
        if reason := measurement.unfit(subject, sets):
            if len(chosen) == 1:
                raise only_on_main(subject.world, ValueError(f"{name}: {reason}"))
            if subject.world.is_main:
                print(f"{subject.name}: {name} is left out: {reason}", file=sys.stderr)
            continue
        data, options = measurement.data(sets), dataclasses.asdict(measurement)  # type: ignore[call-overload]
        wanted[name] = files.inputs(name, measurement, options, subject, data)
        file = files.result_file(subject.folder, name)
        found = None if again else on_main(subject.world, lambda f=file, w=wanted[name]: files.read_results(f, w))  # type: ignore[misc]
        if found is None:
            todo[name] = measurement
        else:
            done[name] = found
            if subject.world.is_main:
                print(f"{subject.name}: {name}: done already ({shown(file)}; --again does it again)")
    needs = {need: None for measurement in todo.values() for need in measurement.needs(sets)}
    started = time.monotonic()
    kept: dict[Need, Any] = {}
    known = {one.path: one for one in (*_data_sets(todo, sets),)}
    for path in dict.fromkeys(need.data for need in needs):
        kept |= observe(subject, known[path], [need for need in needs if need.data == path])
    passed = time.monotonic() - started
    for name, measurement in todo.items():
        started = time.monotonic()

        def measure(measurement: Measurement = measurement) -> dict[str, Any]:
            return measurement.measure(subject, sets, kept)

        found = measure() if measurement.on_every_rank else on_main(subject.world, measure)
        done[name] = found
        if not subject.world.is_main:
            continue
        file, one = files.result_file(subject.folder, name), [Measured(subject.name, found)]
        seconds = time.monotonic() - started + (passed if measurement.needs(sets) else 0)
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_table(file.with_suffix(".csv"), measurement, one)
        files.write_figure(file.with_suffix(".svg"), measurement, one)
        # Last, because it says that all is there.
        files.write_results(
            file,
            wanted[name],
            found,
            subject=subject,
            data=measurement.data(sets),
            command=command,
            seconds=seconds,
        )
        for note in found.get("notes", ()):
            print(f"{subject.name}: {name}: {note}", file=sys.stderr)
    return {name: done[name] for name in chosen if name in done}


def _data_sets(chosen: Mapping[str, Measurement], sets: DataSets) -> list[DataSet]:
    return [one for measurement in chosen.values() for one in measurement.data(sets).values()]


def _tell(
    chosen: Mapping[str, Measurement], measured: Mapping[str, list[Measured]], folders: Sequence[Path], out: Path | None
) -> None:
    """Print the figures of all subjects; of several, write tables and figures that compare them."""
    from ffcv_imagenet.analysis import results as files

    together = None
    if len(folders) > 1:
        together = out or folders[0].parent.parent / "analysis"
        together.mkdir(parents=True, exist_ok=True)
    for name, measurement in chosen.items():
        if not measured[name]:
            continue
        print(f"\n{name}\n{files.format_summary(measured[name])}")
        if together:
            files.write_table(together / f"{name}.csv", measurement, measured[name])
            files.write_figure(together / f"{name}.svg", measurement, measured[name])
    places = ", ".join(shown(folder) for folder in [*folders, *([together] if together else [])])
    print(f"\nresults, tables and figures: {places}")


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Measurement], Given]:
    """The arguments, the chosen measurements with their options, and the options of the network and its images."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(list(argv))
    options = {key: value for key, value in vars(arguments).items() if "." in key}
    if arguments.name != _ALL and arguments.name not in MEASUREMENTS.kinds:
        raise ValueError(f"measurement: got {arguments.name!r}, allowed is {MEASUREMENTS.allowed()} | {_ALL}")
    names = list(MEASUREMENTS.kinds) if arguments.name == _ALL else [arguments.name]
    for key in options:
        if key.partition(".")[0] not in names:
            raise ValueError(f"--{key} is no option of {arguments.name}")
    measurements = {}
    for name in names:
        own = {key.partition(".")[2]: value for key, value in options.items() if key.startswith(f"{name}.")}
        try:
            measurements[name] = MEASUREMENTS.choose(name, own)
        except ValueError as error:
            raise ValueError(str(error).replace("measurement.", f"{name}.", 1)) from None
    if bool(arguments.run) == bool(arguments.weights):
        raise ValueError("give --run=RUN_FOLDER (any number of times) or --weights=FILE --arch=ARCH")
    if arguments.class_order and not arguments.weights:
        raise ValueError("--class-order is for --weights: a run has the classes of its data")
    if arguments.data is None:
        raise ValueError("the images to measure on are missing: give --data=FILE.beton")
    from ffcv_imagenet.config import TrainConfig

    given = collect(TrainConfig, rest, "")
    for key in given.values:
        if not key.startswith(tuple(f"{section}." for section in _SECTIONS)) and key not in _SECTIONS:
            raise ValueError(f"--{key} has no effect here; allowed are options of {', '.join(_SECTIONS)}")
        if key in ("data.val", "data.train", "data.on_error", "model.weights"):
            raise ValueError(f"--{key} is not allowed here: the images come from --data, every one of them counts")
    values, origins = dict(given.values), dict(given.origins)
    if arguments.arch is not None:
        values["model.arch"], origins["model.arch"] = arguments.arch, COMMAND_LINE
    return arguments, measurements, Given(values, origins)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m ffcv_imagenet.analysis",
        description="Measure trained networks. Further options are those of python -m ffcv_imagenet.train in the "
        f"sections {', '.join(_SECTIONS)}, such as --validation.resolution=224 or --dist.device=cpu; without them a "
        "run is measured as it was validated, in float32.",
        argument_default=None,
    )
    parser.add_argument("name", metavar="NAME", help=f"what to measure: {MEASUREMENTS.allowed()} | {_ALL}")
    parser.add_argument("--run", type=Path, action="append", metavar="FOLDER", help="a run folder (repeatable)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a file of weights instead of runs")
    parser.add_argument("--arch", metavar="ARCH", help="architecture of --weights")
    parser.add_argument(
        "--class-order",
        type=Path,
        metavar="FILE",
        help="classes of --weights in the order of their labels: a name per line, or a map of lines PATH<tab>LABEL",
    )
    parser.add_argument("--data", type=Path, metavar="FILE.beton", help="validation images")
    parser.add_argument("--train-data", type=Path, metavar="FILE.beton", help="training images, where they are needed")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where results go (default: RUN_FOLDER/analysis)")
    parser.add_argument("--again", action="store_true", help="measure again what has been measured")
    for name, kind in MEASUREMENTS.kinds.items():
        group = parser.add_argument_group(name, (kind.__doc__ or "").split("\n")[0])
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            default = "none" if field.default is None else field.default
            text = f"{field.metadata['help']} ({field.metadata['checker'].help()}; default: {default})"
            key = f"{name}.{field.name}"
            group.add_argument(
                f"--{key}", metavar="X", default=argparse.SUPPRESS, dest=key, help=text.replace("%", "%%")
            )
    return parser
