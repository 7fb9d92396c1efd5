"""A real S3 server (moto's), in a thread of this process, on a free port."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

KEY, SECRET = "AKIDOFTHETESTS", "secret-of-the-tests"


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """Yield the environment with which clients, here or in other processes, reach the server."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_CONFIG_FILE": "/dev/null",
        }
    finally:
        server.stop()


def make_bucket(name: str) -> str:
    """Make a bucket with the environment's credentials; return its URL."""
    import fsspec

    fsspec.filesystem("s3", use_listings_cache=False).mkdir(name)
    return f"s3://{name}"
