"""Caches in a bucket of the server that the tests start."""

import obstore
import pytest

from avcil.cache.samples import write_sample
from avcil.cache.storage.bucket import BucketFiles


@pytest.fixture
def url(s3: str) -> str:
    """A URL at which there is nothing."""
    return f"{s3}/features.zarr"


@pytest.fixture
def bucket(url: str) -> obstore.store.ObjectStore:
    """The objects below `url`."""
    return BucketFiles(url, write=True)._bucket


@pytest.fixture(scope="module")
def _sample_url(s3_environment: dict[str, str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_environment.items():
            patch.setenv(name, value)
        write_sample("s3://bucket/sample.zarr")
    return "s3://bucket/sample.zarr"


@pytest.fixture
def sample_url(s3: str, _sample_url: str) -> str:
    """The URL of the sample, for tests that only read it; `s3` sets the environment."""
    return _sample_url
