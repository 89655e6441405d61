"""Files."""

from mlq_utils.data.files import (
    HUB_NAME,
    PACKAGE_DATA,
    data_folder,
    from_hub,
    one_of,
    sha256,
    some_of,
    written_whole,
)

__all__ = [
    "HUB_NAME",
    "PACKAGE_DATA",
    "data_folder",
    "from_hub",
    "one_of",
    "sha256",
    "some_of",
    "written_whole",
]
