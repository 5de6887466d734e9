"""Out of memory, said so that a person knows what to lower."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from anatomy.provenance.digest import ArtifactError

CPU_ALLOCATOR = "DefaultCPUAllocator"  # stands in torch's message; on a CPU the error has no type of its own


@contextmanager
def memory_for(work: str, *, lower: str) -> Iterator[None]:
    """Run a block; where memory does not suffice, say during which `work`, and which keys to `lower`.

    Raises:
        ArtifactError: out of memory, of a GPU or of the host.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise ArtifactError(f"out of memory while {work}: lower {lower}") from None
    except RuntimeError as error:
        if CPU_ALLOCATOR not in str(error):
            raise
        raise ArtifactError(f"out of memory while {work}: lower {lower}") from None
