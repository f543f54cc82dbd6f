"""Is it a path of this machine, or a URL? Pure."""

LOCAL = ("file://", "local://")
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "obs", "r2", "hf"})


def is_url(place: str) -> bool:
    """Whether `output.dir` names something else than a folder of this machine."""
    return "://" in place and not place.startswith(LOCAL)


def local_path(place: str) -> str:
    """The path of this machine that a `file://` stands for; any other text as it is."""
    return next((place.removeprefix(prefix) for prefix in LOCAL if place.startswith(prefix)), place)
