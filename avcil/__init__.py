"""Audio-visual class-incremental learning on frozen SAM-Audio features."""


def __getattr__(name: str) -> str:  # Ctrl-C during the import above `main` would show a traceback
    if name == "__version__":
        from importlib.metadata import version

        return version("avcil")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
