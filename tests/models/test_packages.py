"""Packages by the name they are imported by, whatever the distribution is called that they come from."""

import importlib.metadata
import re
from dataclasses import replace

import pytest

import farm
from farm.config.sections import ModelConfig
from farm.engines.base import Prepared
from farm.engines.fingerprint import fingerprint_of
from farm.models import backends, packages
from farm.models.conversion.identity import entry_name
from farm.models.conversion.request import Request
from farm.models.packages import distributions_of, installed_as, package_version
from tests.support.harness import ROOT


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages, which Python finds before any other."""
    monkeypatch.syspath_prepend(str(tmp_path))
    packages._providers.cache_clear()

    def install(distribution, number, module):
        (tmp_path / module).mkdir(exist_ok=True)
        (tmp_path / module / "__init__.py").touch()
        described = tmp_path / f"{distribution.replace('-', '_')}-{number}.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {number}\n")
        (described / "RECORD").write_text(f"{module}/__init__.py,,\n")

    yield install
    packages._providers.cache_clear()


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-cu12", "tensorrt_cu13"])
def test_tensorrt_by_any_of_its_names(site, name):
    assert not backends.installed("tensorrt")
    site(name, "10.4.0", "tensorrt")
    assert backends.installed("tensorrt")
    assert package_version("tensorrt") == "10.4.0"


def test_an_engine_is_kept_by_the_distribution_that_builds_it(site):
    """Those for CUDA 12 and 13 have the same numbers, and do not read each other's engines."""
    request = Request(ModelConfig(weights="m.pt", backend="tensorrt"), "digest", "tensorrt", "cuda:0")
    site("tensorrt-cu12", "10.4.0", "tensorrt")
    before = entry_name(request)
    assert installed_as("tensorrt") == ["tensorrt-cu12 10.4.0"]
    site("tensorrt-cu13", "10.4.0", "tensorrt")
    packages._providers.cache_clear()
    assert installed_as("tensorrt") == ["tensorrt-cu12 10.4.0", "tensorrt-cu13 10.4.0"]
    assert package_version("tensorrt") is not None
    assert entry_name(request) != before


def test_a_module_of_several_distributions(site):
    site("engine-cpu", "1.20.0", "engine")
    site("engine-gpu", "1.21.0", "engine")
    assert distributions_of("engine") == ["engine-cpu", "engine-gpu"]
    assert package_version("engine") == "engine-cpu 1.20.0, engine-gpu 1.21.0"


def test_what_is_not_there_has_no_version():
    assert package_version("farm_not_here") is None
    assert distributions_of("farm_not_here") == []


@pytest.mark.parametrize(("module", "name"), [("onnxruntime", "onnxruntime-gpu"), ("cv2", "opencv-python-headless")])
def test_another_build_has_its_version(site, monkeypatch, module, name):
    def version(asked):
        if asked != name:
            raise importlib.metadata.PackageNotFoundError(asked)
        return "9.9"

    monkeypatch.setattr(packages, "version", version)
    monkeypatch.setattr(packages, "packages_distributions", lambda: {module: [name]})
    assert package_version(module) == "9.9"
    assert backends.installed("onnxruntime-gpu") == (name == "onnxruntime-gpu")


def test_a_fingerprint_has_the_versions_of_what_is_imported():
    from farm.config.loading import validate
    from farm.core.placement import plan
    from farm.machine.hardware import Machine
    from farm.models.conversion.executables import Executable
    from farm.sources.failed_images import FailedImages

    config = validate({"source": "/a", "model": "m.pt", "output": "/o", "workers": {"devices": "cpu"}})
    places = plan(Machine(((0,),), 1 << 34, ()), config.workers)
    prepared = Prepared(config, FailedImages("none", "/a", lambda: iter(())), places, "0")
    fingerprint = fingerprint_of(prepared, Executable("m.pt", "torch"))
    assert fingerprint["opencv-python version"] == package_version("cv2") is not None
    assert "torchcodec version" not in fingerprint
    on_device = config.model_copy(update={"model": config.model.model_copy(update={"decode": "device"})})
    fingerprint = fingerprint_of(replace(prepared, config=on_device), Executable("m.pt", "torch"))
    assert (fingerprint["model.decode"], "torchcodec version" in fingerprint) == ("device", True)


def test_the_version_is_that_of_the_project():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["version"]) == ("yolo-farm", farm.__version__)


def test_nobody_is_told_to_install_the_other_farm():
    files = [ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml"]
    files += [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
    for folder in ("farm", "docs", "benchmarks", "configs", "tests", ".ci"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".yaml", ".toml")]
    wrong = re.compile(r"""(install ["']?|["'`])farm(\[|["'`]?\s*$)""", re.MULTILINE)
    told = [
        (path, line) for path in files for line in path.read_text(encoding="utf-8").splitlines() if "install" in line
    ]
    assert [f"{path}: {line}" for path, line in told if wrong.search(line)] == []
