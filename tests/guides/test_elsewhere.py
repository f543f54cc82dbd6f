"""Results in a bucket, and workers on a cluster."""

import os

import pytest

from tests.guides.pages import run_page


@pytest.mark.timeout(600)
def test_a_bucket(folder, environ, bucket):
    environ |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    run_page("bucket", folder, environ, lambda text: text.replace("s3://bucket", bucket))


@pytest.mark.timeout(600)
def test_a_cluster(folder, environ):
    pytest.importorskip("ray")
    run_page("ray", folder, environ)
