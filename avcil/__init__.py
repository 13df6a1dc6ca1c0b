"""Audio-visual class-incremental learning on frozen SAM-Audio features.

    import avcil

    avcil.extract("demo")                                    # clips to tokens in a cache
    runs = avcil.train("data/demo/features.zarr", seeds=[0, 1, 2])
    print(avcil.report(runs))
    avcil.predict(runs[0].folder, ["clip.mp4"])              # the best classes of new clips
    avcil.load_run(runs[0].folder).matrix                    # a run, as tables
    avcil.cache.open("data/demo/features.zarr")              # the tokens themselves

The commands of the same names call these functions. Each is imported when it is first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avcil import cache as cache
    from avcil.api.extraction import extract as extract
    from avcil.api.prediction import predict as predict
    from avcil.api.reporting import report as report
    from avcil.api.runs import load_run as load_run
    from avcil.api.training import continue_training as continue_training
    from avcil.api.training import train as train

    __version__: str
else:
    _MODULES = {
        "cache": "avcil.cache",
        "extract": "avcil.extract",  # the package, which can be called
        "predict": "avcil.api.prediction",
        "report": "avcil.api.reporting",
        "load_run": "avcil.api.runs",
        "train": "avcil.api.training",
        "continue_training": "avcil.api.training",
    }

    def __getattr__(name: str):  # Ctrl-C during an import above `main` would show a traceback
        from importlib import import_module, metadata

        if name == "__version__":
            return metadata.version("avcil")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(_MODULES[name])
        return module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)

    def __dir__() -> list[str]:
        return sorted([*globals(), *_MODULES, "__version__"])
