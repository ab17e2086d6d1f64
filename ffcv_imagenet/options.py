"""Strict command-line and YAML options on top of fastargs.

A group of options is a frozen dataclass whose fields are made by :func:`option`; a configuration is a frozen
dataclass of such groups. :func:`parse` turns them into fastargs sections and params, reads ``--config-file``
files and ``--section.name=value`` arguments over them, and returns the filled configuration.

Stricter than fastargs alone: an unknown key, a value of the wrong type or outside its range, or the same
mistake in a YAML file raises ``ValueError`` naming the key, what was got and what is allowed. All mistakes are
reported at once, each with where the values come from. Environment variables are never read as options.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from fastargs import Param, Section
from fastargs.config import Config
from fastargs.validation import Checker

from ffcv_imagenet.elsewhere import other_meanings
from ffcv_imagenet.hints import hint, unknown_arguments
from ffcv_imagenet.script import OneLineParser
from ffcv_imagenet.variants import Variants

ConfigT = TypeVar("ConfigT")

#: Where the values of the command line's words come from, for messages.
COMMAND_LINE = "the command line"

_CONFIG_FILE, _PRINT_CONFIG = "--config-file", "--print-config"
_PRINT_CONFIG_HELP = "print all options with their values as a file for --config-file, and stop"


class OptionsError(ValueError):
    """One or more mistakes in the options, each a sentence; as text, a line for each."""

    def __init__(self, texts: Sequence[str]):
        self.texts = tuple(texts)
        many = f"{len(texts)} mistakes in the options:\n  " if len(texts) > 1 else ""
        super().__init__(many + "\n  ".join(texts))


#: The recipes of the package, which the source has at rn_configs/.
RECIPES = Path(__file__).with_name("recipes")


@dataclass(frozen=True)
class Given:
    """Options as a user gives them: the texts or YAML values, where each comes from, and words without value."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    flags: frozenset[str] = frozenset()


class Integer(Checker):
    """A whole number in ``[low, high]``; ``5.0`` and ``True`` are not whole numbers."""

    def __init__(self, low: float = -math.inf, high: float = math.inf):
        self.low, self.high = low, high

    def check(self, value: Any) -> int:
        """Return ``value`` as an int; raises ValueError when it is none or out of range."""
        if isinstance(value, (bool, float)):
            raise ValueError
        number = int(value)
        if not self.low <= number <= self.high:
            raise ValueError
        return number

    def help(self) -> str:
        """What is allowed."""
        return "a whole number" + _range_text(self.low, self.high)


class Real(Checker):
    """A finite number in ``[low, high]``."""

    def __init__(self, low: float = -math.inf, high: float = math.inf):
        self.low, self.high = low, high

    def check(self, value: Any) -> float:
        """Return ``value`` as a float; raises ValueError when it is none or out of range."""
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if not (self.low <= number <= self.high and math.isfinite(number)):
            raise ValueError
        return number

    def help(self) -> str:
        """What is allowed."""
        return "a number" + _range_text(self.low, self.high)


_SWITCH_WORDS = {**dict.fromkeys(("1", "true", "yes", "on"), True), **dict.fromkeys(("0", "false", "no", "off"), False)}


class Switch(Checker):
    """0 or 1 (also true/false, yes/no, on/off)."""

    def check(self, value: Any) -> bool:
        """Return ``value`` as a bool; raises KeyError on anything else."""
        return _SWITCH_WORDS[str(value).lower()]

    def help(self) -> str:
        """What is allowed."""
        return "0 or 1"


class Choice(Checker):
    """One of a few words."""

    def __init__(self, *words: str):
        self.words = words

    def check(self, value: Any) -> str:
        """Return ``value``; raises ValueError when it is not one of the words."""
        if value not in self.words:
            raise ValueError
        return value

    def help(self) -> str:
        """What is allowed."""
        return " | ".join(self.words)


class Text(Checker):
    """Any text that is not empty."""

    def check(self, value: Any) -> str:
        """Return ``value`` as text; raises ValueError when it is empty or structured."""
        if isinstance(value, (dict, list)) or not str(value):
            raise ValueError
        return str(value)

    def help(self) -> str:
        """What is allowed."""
        return "text"


class Words(Checker):
    """A comma-separated list of different words out of a few."""

    def __init__(self, *words: str):
        self.words = words

    def check(self, value: Any) -> tuple[str, ...]:
        """Return the words as a tuple; raises ValueError on an unknown, repeated or missing word."""
        got = tuple(value) if isinstance(value, (list, tuple)) else tuple(str(value).split(","))
        if not got or len(set(got)) != len(got) or not set(got) <= set(self.words):
            raise ValueError
        return got

    def help(self) -> str:
        """What is allowed."""
        return "a comma-separated list of " + ", ".join(self.words)


class Numbers(Checker):
    """So many finite numbers in ``[low, high]``, separated by commas; count None: one or more."""

    def __init__(self, count: int | None, low: float, high: float):
        self.count, self.number = count, Real(low, high)

    def check(self, value: Any) -> tuple[float, ...]:
        """Return the numbers as a tuple; raises ValueError on another count or a number out of range."""
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        if self.count is not None and len(parts) != self.count:
            raise ValueError
        return tuple(self.number.check(part) for part in parts)

    def help(self) -> str:
        """What is allowed."""
        count = "" if self.count is None else f"{self.count} "
        return f"{count}comma-separated numbers" + self.number.help().removeprefix("a number")


class VariantName(Checker):
    """The name of a variant."""

    def __init__(self, variants: Variants):
        self.variants = variants

    def check(self, value: Any) -> str:
        """Return ``value``; raises ValueError when there is no such variant."""
        self.variants.kind(str(value))
        return str(value)

    def help(self) -> str:
        """What is allowed."""
        return self.variants.allowed()


def words_of(checker: Checker) -> list[str]:
    """The words that a checker takes, as far as they are few; of a list of words, one of them."""
    match checker:
        case OrNone():
            words = words_of(checker.checker)
            return [*words, "none"] if words else []
        case Choice() | Words():
            return list(checker.words)
        case VariantName():
            return list(checker.variants.kinds)
        case Switch():
            return ["0", "1"]
    return []


class OrNone(Checker):
    """What another checker allows, or ``none`` for "not given"."""

    def __init__(self, checker: Checker):
        self.checker = checker

    def check(self, value: Any) -> Any:
        """Return None for ``none``, else what the wrapped checker returns."""
        return None if value is None or str(value).lower() == "none" else self.checker.check(value)

    def help(self) -> str:
        """What is allowed."""
        return self.checker.help() + ", or none"


def _range_text(low: float, high: float) -> str:
    if math.isfinite(low) and math.isfinite(high):
        return f" from {low} to {high}"
    if math.isfinite(low):
        return f" >= {low}"
    if math.isfinite(high):
        return f" <= {high}"
    return ""


_REQUIRED = object()


@dataclasses.dataclass(frozen=True)
class Effect:
    """What it means to change an option.

    ``resumable``: it may change when a run continues. ``averaged``: runs that differ in it may be averaged. ``shown``:
    the report lists it among what differs.
    """

    resumable: bool
    averaged: bool
    shown: bool = True


def option(checker: Checker, text: str, default: Any = _REQUIRED, effect: Effect | None = None) -> Any:
    """A dataclass field that is an option: what it allows, its help text, default (none: required) and effect."""
    metadata = {"checker": checker, "help": text, "effect": effect}
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def variant_options(variants: Variants) -> Any:
    """A dataclass field for the options of the chosen one of ``variants``: ``{option: value}``.

    The group that has it also has the option ``variants.key``, which chooses.
    """
    return dataclasses.field(default_factory=dict, metadata={"variants": variants})


def group(kind: type) -> Any:
    """A configuration field that holds a group of options."""
    return dataclasses.field(metadata={"group": kind})


def parse(kind: type[ConfigT], argv: Sequence[str], description: str) -> ConfigT:
    """Read a configuration of dataclass ``kind`` from command-line words ``argv``.

    Later sources win: defaults, then each ``--config-file`` in order, then ``--section.name=value``.
    ``--help`` prints every option and exits with status 0.

    Raises:
        ValueError: an unknown option, a missing required one, or a value that is not allowed.
        FileNotFoundError: a configuration file that is not there.
    """
    given = collect(kind, argv, description)
    return build(kind, given.values, given.origins)


def parse_command(
    kind: type[ConfigT], argv: Sequence[str], description: str, flags: Mapping[str, str] | None = None
) -> tuple[ConfigT, Given]:
    """The configuration, and what ``argv`` gives of it, for a command that ``kind`` says everything of.

    ``--print-config`` prints the configuration as a file for ``--config-file``, and exits with status 0. ``flags`` are
    further words that are allowed, such as ``--dry-run``, with their help. Raises like :func:`parse`.
    """
    given = collect(kind, argv, description, {_PRINT_CONFIG: _PRINT_CONFIG_HELP, **(flags or {})})
    config = build(kind, given.values, given.origins)
    if _PRINT_CONFIG in given.flags:
        print(to_yaml(config), end="")
        raise SystemExit
    return config, given


def collect(kind: type, argv: Sequence[str], description: str, flags: Mapping[str, str] | None = None) -> Given:
    """What ``argv`` gives, without defaults; see :func:`parse` and :func:`parse_command`.

    Raises:
        ValueError: unknown options, of the command line and the files alike.
        FileNotFoundError: a configuration file that is not there.
    """
    flags = flags or {}
    given, unknown = _read(kind, argv, description, {}, flags)
    if unknown:  # Options of a variant from outside are known when its name is.
        given, unknown = _read(kind, argv, description, given.values, flags)
    known = options_of(kind, given.values)
    mistakes = unknown_arguments(unknown, [*known, *(flag.lstrip("-") for flag in flags)])
    mistakes += [f"{given.origins[k]}: {_unknown(k, v, known)}" for k, v in given.values.items() if k not in known]
    if mistakes:
        raise OptionsError(mistakes + other_meanings(given.values, known))
    return given


def _read(
    kind: type, argv: Sequence[str], description: str, chosen: Mapping[str, Any], flags: Mapping[str, str]
) -> tuple[Given, list[str]]:
    """What files and command line give, and the words that are no options."""
    namespace, unknown = _argument_parser(kind, description, chosen, flags).parse_known_args(list(argv))
    words = dict(vars(namespace))
    files, given_flags = words.pop("config_file"), frozenset(flag for flag in flags if words.pop(flag, False))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name in files:
        content = read_yaml(find_config_file(name))
        values.update(content)
        origins.update(dict.fromkeys(content, name))
    return Given(values | words, origins | dict.fromkeys(words, COMMAND_LINE), given_flags), unknown


def config_files(argv: Sequence[str]) -> list[Path]:
    """The configuration files that a command line names, in order."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    _add_config_file_argument(parser)
    try:
        names = parser.parse_known_args(list(argv))[0].config_file
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from None
    return [find_config_file(name) for name in names]


def find_config_file(name: str) -> Path:
    """A configuration file by its path, or a recipe of the package by its name, such as ``rn50_16_epochs``.

    Raises:
        FileNotFoundError: it is neither.
    """
    path = Path(name)
    recipe = RECIPES / f"{path.name.removesuffix('.yaml')}.yaml"
    if path.is_file():
        return path
    if path.name == name and recipe.is_file():
        return recipe
    if recipe.is_file():
        hint = f"--config-file={recipe.stem} is the recipe of this package"
    else:
        hint = f"recipes of this package: {', '.join(sorted(file.stem for file in RECIPES.glob('*.yaml')))}"
    raise FileNotFoundError(f"configuration file not found: {path} ({hint})")


def recipe_name(argv: Sequence[str]) -> str:
    """What the run of a command line is called after: its configuration files, or the recipe of a run it repeats."""
    return "+".join(_recipe_of(file) for file in config_files(argv)) or "none"


def build(kind: type[ConfigT], values: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> ConfigT:
    """Check ``{"section.name": value}`` against dataclass ``kind`` and return the filled configuration.

    Args:
        kind: of the configuration.
        values: texts of the command line, or values of a YAML file.
        origins: where each of the values comes from, for messages; None: they don't say so.

    Raises:
        ValueError: unknown keys, missing required values, values that are not allowed or that do not go together.
    """
    groups, schema = _groups(kind), options_of(kind, values)
    mistakes = [_unknown(key, value, schema) for key, value in values.items() if key not in schema]
    known = {key: value for key, value in values.items() if key in schema}
    for key, value in known.items():
        checker = schema[key].metadata["checker"]
        if value is None and not isinstance(checker, OrNone):  # An empty value in YAML; fastargs lets it pass.
            mistakes.append(f"{key}: got nothing, allowed is {checker.help()}")
    config = Config()
    for name, section in groups.items():
        params = {
            f.name: Param(
                f.metadata["checker"],
                f.metadata["help"],
                required=f.default is dataclasses.MISSING,
            )
            for key, f in schema.items()
            if key.startswith(f"{name}.")
        }
        Section(name, section.__doc__ or "", config_descriptor=config).params(**params)
    config.collect({key: value for key, value in known.items() if value is not None})
    for path in config.validate("errordict"):
        key = ".".join(path)
        allowed = schema[key].metadata["checker"].help()
        if key not in known:
            text = schema[key].metadata["help"]
            mistakes.append(f"{key} is required: give --{key}={'...' if allowed == 'text' else allowed}, {text}")
        elif known[key] is not None:
            mistakes.append(f"{key}: got {known[key]!r}, allowed is {allowed}")
    if mistakes:
        raise OptionsError([_with_origins(text, schema, origins) for text in mistakes])
    filled = {}
    for name, section in groups.items():
        given = {key.partition(".")[2]: key for key in schema if key in known and key.startswith(f"{name}.")}
        try:
            filled[name] = _fill(section, {f: None if known[k] is None else config[k] for f, k in given.items()})
        except ValueError as error:
            mistakes.append(str(error))
    try:
        if not mistakes:
            return kind(**filled)
    except ValueError as error:
        mistakes += error.texts if isinstance(error, OptionsError) else [str(error)]
    raise OptionsError([_with_origins(text, schema, origins) for text in mistakes])


def _with_origins(text: str, schema: Mapping[str, Any], origins: Mapping[str, str] | None) -> str:
    """A sentence about options (``section.name: got ...``, ``section.name=...``), and where their values come from."""
    names = dict.fromkeys(re.findall(r"(?<![-\w])(\w+\.\w+)(?=: got |=)", text))
    places: dict[str, list[str]] = {}
    for key in names:
        if key in schema:
            places.setdefault((origins or {}).get(key, ""), []).append(key)
    if origins is None or not set(places) - {COMMAND_LINE}:  # What was just typed needs no origin.
        return text
    told = [f"{comma_and(keys)} from {place}" for place, keys in places.items() if place]
    told += [f"{comma_and(keys)} by default" for place, keys in places.items() if not place]
    return f"{text} ({'; '.join(told)})"


def comma_and(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _unknown(key: str, value: Any, schema: Mapping[str, Any]) -> str:
    shown = f"={_show(value)}" if isinstance(value, (bool, int, float, str)) else ""
    no_section = f"{key!r} is in no section, allowed is a mapping of sections to options"
    what = f"unknown option {key!r}" if "." in key else no_section
    return f"{what} ({hint(key + shown, schema)})"


def _fill(section: type, given: dict[str, Any]) -> Any:
    """A group of options from checked values. What the chosen variant takes is completed by its defaults."""
    own = {f.name: f for f in dataclasses.fields(section)}
    group = section(**{name: value for name, value in given.items() if name in own})
    for field, variants in _variants(section).items():
        chosen = getattr(group, variants.key.partition(".")[2])
        options = {name: value for name, value in given.items() if name not in own}
        if chosen is not None:
            options = variants.resolve(chosen, options)
        group = dataclasses.replace(group, **{field: options})
    return group


def options_of(kind: type, values: Mapping[str, Any] | None = None) -> dict[str, dataclasses.Field]:
    """All options of a configuration, ``{"section.name": field}``, those of variants included.

    A variant's option may be none ("not given"), and has the effect of the option that chooses. Where several variants
    have one of that name, it is the chosen one's.

    Args:
        kind: the configuration.
        values: ``{"section.name": value}``, which choose the variants.
    """
    found: dict[str, dataclasses.Field] = {}
    for name, section in _groups(kind).items():
        own = {f.name: f for f in dataclasses.fields(section) if "checker" in f.metadata}
        found |= {f"{name}.{key}": f for key, f in own.items()}
        for variants in _variants(section).values():
            chooses = own[variants.key.partition(".")[2]]
            chosen = str((values or {}).get(variants.key, chooses.default))
            for key, fields in variants.options(*([chosen] if ":" in chosen else [])).items():
                metadata = (fields.get(chosen) or next(iter(fields.values()))).metadata
                checker = metadata["checker"]
                if not isinstance(checker, OrNone):
                    checker = OrNone(checker)
                optional = option(checker, metadata["help"], None, chooses.metadata["effect"])
                optional.name = key
                found[f"{name}.{key}"] = optional
    return found


def _variants(section: type) -> dict[str, Variants]:
    """The variants that a group of options chooses among, by the field for their options."""
    return {f.name: f.metadata["variants"] for f in dataclasses.fields(section) if "variants" in f.metadata}


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, where YAML's loader forgets the first value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node; raises yaml.YAMLError on a repeated key."""
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of sections, or a run's ``params.json``, as ``{"section.name": value}``.

    Of a run, all options but ``checkpoint.resume``: it is repeated, not continued. What is in no section comes under
    its own name, which no option has.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, or not a mapping of sections to options.
    """
    content = _read_mapping(path)
    if _is_run(content):
        return {key: value for key, value in content["config"].items() if key != "checkpoint.resume"}
    values: dict[str, Any] = {}
    for section, options in content.items():
        values |= {f"{section}.{k}": v for k, v in options.items()} if isinstance(options, dict) else {section: options}
    return values


def _read_mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"configuration file not found: {path}")
    try:
        content = yaml.load(path.read_text(), _StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path}: allowed is a mapping of sections to options, such as 'lr: {{lr: 0.5}}'")
    return content


def _is_run(content: Mapping[str, Any]) -> bool:
    """Whether this is what a run's ``params.json`` holds."""
    return isinstance(content.get("config"), dict) and isinstance(content.get("recipe"), str)


def _recipe_of(path: Path) -> str:
    content = _read_mapping(path)
    return content["recipe"] if _is_run(content) else path.stem


def to_yaml(config: Any) -> str:
    """A configuration as a file for ``--config-file``; with every option, so that it does not depend on defaults."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in flatten(config).items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    return yaml.safe_dump(sections, sort_keys=False, default_flow_style=None, width=120)


def flatten(config: Any) -> dict[str, Any]:
    """A configuration as ``{"section.name": value}`` of values that JSON has, the inverse of :func:`build`."""
    flat: dict[str, Any] = {}
    for name, section in _groups(type(config)).items():
        options = vars(getattr(config, name))
        variants = _variants(section)
        for values in ({k: v for k, v in options.items() if k not in variants}, *(options[k] for k in variants)):
            flat |= {f"{name}.{key}": value for key, value in values.items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in flat.items()}


def complete(kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that an earlier version has written, as :func:`flatten` would write them.

    Where an option of a variant was not given, or does not apply, earlier versions wrote None.
    """
    found = dict(options)
    for section in _groups(kind).values():
        for variants in _variants(section).values():
            for name in variants.options():
                if found.get(f"{variants.section}.{name}", found) is None:
                    del found[f"{variants.section}.{name}"]
            if (chosen := options.get(variants.key)) in variants.kinds:
                found = {f"{variants.section}.{k}": v for k, v in variants.takes(chosen).items()} | found
    return found


def _groups(kind: type) -> dict[str, type]:
    return {f.name: f.metadata["group"] for f in dataclasses.fields(kind)}


def _argument_parser(
    kind: type, description: str, chosen: Mapping[str, Any], flags: Mapping[str, str]
) -> OneLineParser:
    parser = OneLineParser(
        usage="%(prog)s [--config-file=FILE ...] [--SECTION.OPTION=VALUE ...]",
        description=description,
        argument_default=argparse.SUPPRESS,
    )
    _add_config_file_argument(parser)
    for flag, text in flags.items():
        parser.add_argument(flag, action="store_true", dest=flag, help=text)
    options = options_of(kind, chosen)
    for name, section in _groups(kind).items():
        arguments = parser.add_argument_group(name, section.__doc__)
        texts = {key: _help(f) for key, f in options.items() if key.startswith(f"{name}.")}
        for variants in _variants(section).values():
            texts |= {f"{name}.{key}": _variants_help(fields) for key, fields in variants.options().items()}
        for key, text in texts.items():
            arguments.add_argument(f"--{key}", metavar="X", help=text.replace("%", "%%"))
            if key in options:
                parser.words[key] = words_of(options[key].metadata["checker"])
    return parser


def _help(field: dataclasses.Field) -> str:
    default = "required" if field.default is dataclasses.MISSING else f"default: {_show(field.default)}"
    return f"{field.metadata['help']} ({field.metadata['checker'].help()}; {default})"


def _variants_help(fields: Mapping[str, dataclasses.Field]) -> str:
    """The help of an option that several variants have, with the same meaning or each with its own."""
    meanings: dict[str, list[str]] = {}
    for name, field in fields.items():
        meanings.setdefault(_help(field), []).append(name)
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in meanings.items())


def _add_config_file_argument(parser: argparse.ArgumentParser) -> None:
    text = (
        "read options from a YAML file, a recipe of the package by its name, such as rn50_16_epochs, or those of a run "
        "from its params.json (repeatable, later ones win; the command line wins over all)"
    )
    parser.add_argument(_CONFIG_FILE, "-C", action="append", default=[], metavar="FILE", help=text)
    if isinstance(parser, OneLineParser):
        parser.words["config-file"] = sorted(file.stem for file in RECIPES.glob("*.yaml"))


def _show(default: Any) -> str:
    if isinstance(default, bool):
        return str(int(default))
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return "none" if default is None else str(default)
