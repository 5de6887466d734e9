"""Downloads: runs have none unless a person allows them."""

import os

# Where nothing is to be downloaded, a missing file must be an error and not a request to a server.
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def how_to_download() -> str:
    """The end of a message about a hub that gave nothing: how downloads are allowed; empty where they are."""
    if not any(os.environ.get(name, "").upper() in ("1", "ON", "TRUE", "YES") for name in OFFLINE):
        return ""
    return f"; nothing is downloaded unless {' '.join(f'{name}=0' for name in OFFLINE)} stands before the command"
