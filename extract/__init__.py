"""Media files to tokens: data sets, decoding, frozen encoders.

The package can be called: `avcil.extract("demo")` calls `avcil.api.extraction.extract`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package with the name of a function; see docs/decisions/0007-python-interface.md."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Encode the clips of a data set; see `avcil.api.extraction.extract`."""
        return import_module("avcil.api.extraction").extract(*arguments, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, (self.__name__,)


sys.modules[__name__].__class__ = _CallablePackage
