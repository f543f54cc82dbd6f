"""Fixtures that every test may use: the real images and models beside the checkout."""

import logging
import os
import secrets
import signal
import tempfile
from pathlib import Path

import pytest

from tests.support.checkout import SHARED_DATA

os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", ULTRALYTICS_SAFE_LOAD="true", YOLO_VERBOSE="false")
if "YOLO_CONFIG_DIR" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:  # a file that Ultralytics rewrites
    os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="farm-tests-ultralytics-")

# Whoever runs the tests may ignore signals (nohup, a shell's background job), and the farms they start inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)

LONGEST = (  # minutes each: begun first, so that none of them is waited for alone at the end
    "engines/test_ray.py", "models/backends/test_backends.py", "parity/test_label_files.py",
    "parity/test_checkpoints.py", "guides/test_folder.py", "guides/test_programs.py", "guides/test_elsewhere.py",
    "test_readme.py", "parity/test_exports.py", "library/test_farm.py", "engines/test_contract.py",
    "storage/test_remote_runs.py", "benchmarks/gpu/test_rehearsal.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {str(Path(__file__).parent / name): at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(str(item.path), len(LONGEST)))  # else in the order there is


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real COCO images with ground truth, and real models. Under CI they must be there."""
    if not SHARED_DATA.is_dir():
        message = f"no test data at {SHARED_DATA}; set FARM_SHARED_DATA to the folder with coco/ and models/"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return SHARED_DATA


@pytest.fixture(scope="session")
def coco_images(shared_data: Path) -> Path:
    return shared_data / "coco" / "images"


@pytest.fixture(scope="session")
def coco_weights(shared_data: Path) -> Path:
    return shared_data / "models" / "yolo11n-coco.pt"


@pytest.fixture(scope="session")
def s3_server():
    """An S3 server of this machine, as an object store that speaks HTTP."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch, tmp_path):
    """The URL of an empty bucket; this process and its children have what opens it."""
    import s3fs

    host, port = s3_server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "farm")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"labels-{secrets.token_hex(4)}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
