"""Settings of runs that take a second on the toy cache."""

SMALL: dict[str, object] = {
    "tasks": 3,
    "memory": 12,
    "epochs": 3,
    "batch_size": 8,
    "exemplar_batch_size": 4,
    "head.width": 16,
}
