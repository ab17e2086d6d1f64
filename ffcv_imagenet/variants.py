"""A name chooses, and brings options of its own: a loss, a learning-rate schedule, a way to store images.

Each variant is a frozen dataclass whose fields are its options, made by :func:`ffcv_imagenet.options.option`: what is
allowed, help and default stand there and nowhere else. An option applies to the variants that have it and is refused
for the others; None means "not given". Nothing here needs torch.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

VariantT = TypeVar("VariantT")


class Variants(Generic[VariantT]):
    """The variants among which the option ``key`` (such as ``loss.name``) chooses.

    Args:
        key: the option that chooses, ``section.name``; the variants' own options are in the same section.
        kinds: each name's dataclass; the order is that of help texts and reports.
        base: what a variant from outside has to be a subclass of. With it, ``package.module:Class`` is a name, too.
    """

    def __init__(self, key: str, kinds: Mapping[str, type[VariantT]], base: type[VariantT] | None = None):
        self.key, self.kinds, self.base = key, dict(kinds), base
        self.section = key.partition(".")[0]

    def allowed(self) -> str:
        """The names, in words."""
        return " | ".join([*self.kinds, *(["package.module:Class"] if self.base else [])])

    def kind(self, name: str) -> type[VariantT]:
        """The dataclass of a name.

        Raises:
            ValueError: an unknown name, or a class that cannot be imported or is no such variant.
        """
        if name in self.kinds:
            return self.kinds[name]
        if self.base is None or ":" not in name:
            raise ValueError(f"{self.key}: got {name!r}, allowed is {self.allowed()}")
        found = import_named(self.key, name)
        if not (isinstance(found, type) and issubclass(found, self.base) and dataclasses.is_dataclass(found)):
            raise ValueError(
                f"{self.key}: got {name!r}, allowed is a dataclass that is a subclass of "
                f"{self.base.__module__}.{self.base.__qualname__}"
            )
        return found  # type: ignore[return-value]

    def options(self, *names: str) -> dict[str, dict[str, dataclasses.Field]]:
        """Each option's field in every variant that has it: ``{option: {variant: field}}``.

        ``names`` are variants from outside to include.
        """
        found: dict[str, dict[str, dataclasses.Field]] = {}
        for name in dict.fromkeys((*self.kinds, *names)):
            for field in dataclasses.fields(self.kind(name)):  # type: ignore[arg-type]
                found.setdefault(field.name, {})[name] = field
        return found

    def takes(self, name: str) -> dict[str, Any]:
        """The options of one variant, with their defaults."""
        return {field.name: field.default for field in dataclasses.fields(self.kind(name))}  # type: ignore[arg-type]

    def choose(self, name: str, given: Mapping[str, Any] | None = None) -> VariantT:
        """The variant ``name`` with the options ``given``; one that is None counts as not given.

        Raises:
            ValueError: an unknown name, an option that the variant does not have, or a value that is not allowed.
        """
        kind, options = self.kind(name), self.options(name)
        values = {}
        for option, value in (given or {}).items():
            if value is None:
                continue
            field = options.get(option, {}).get(name)
            if field is None:
                takes = ", ".join(f"{self.section}.{o}" for o in self.takes(name)) or "no option"
                taken_by = " | ".join(options.get(option, ()))
                others = f" (it applies to {self.key}={taken_by})" if taken_by else ""
                raise ValueError(
                    f"{self.section}.{option}: got {_shown(value)} for {self.key}={name}, which takes {takes}{others}"
                )
            checker = field.metadata["checker"]
            try:
                values[option] = checker.check(value)
            except (ValueError, TypeError, KeyError):
                raise ValueError(f"{self.section}.{option}: got {value!r}, allowed is {checker.help()}") from None
        return kind(**values)

    def resolve(self, name: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All options of the variant ``name`` with their values, given or default; raises like :meth:`choose`."""
        chosen = self.choose(name, given)
        return {option: getattr(chosen, option) for option in self.takes(name)}


def import_named(key: str, name: str) -> Any:
    """What ``package.module:name`` names, for the option ``key``; raises ValueError when it cannot be imported."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{key}: got {name!r}, which cannot be imported: {error}") from None


def _shown(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
