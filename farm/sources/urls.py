"""A URL where a path of this machine is wanted: no source yet, and what works today. Pure."""

from __future__ import annotations

from farm.machine.locations import OBJECT_STORES, is_url

INSTEAD = (
    ({*OBJECT_STORES}, "mount the bucket as a folder (rclone mount, s3fs, gcsfuse), or copy the images here"),
    ({"http", "https", "ftp"}, "download the images into a folder"),
    ({"rtsp", "rtmp", "tcp", "udp"}, "farm labels images; save frames of the stream into a folder"),
)
ELSE = "copy the images into a folder of this machine"


def refusal(source: str) -> str:
    """Why a source cannot be read, and what to do; nothing where it is no URL."""
    if not is_url(source):
        return ""
    scheme = source.partition("://")[0].lower()
    instead = next((text for schemes, text in INSTEAD if scheme in schemes), ELSE)
    return (
        f"source {source} is a URL, which is no source yet: {instead}, and give that folder, a glob, or a list of paths"
    )
