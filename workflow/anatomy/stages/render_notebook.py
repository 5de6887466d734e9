"""Stage render_notebook: one notebook, executed by papermill, gives tables and figures."""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.manager import AsyncKernelManager
from nbconvert import HTMLExporter

from anatomy.provenance.digest import ArtifactError, write_text_atomic
from anatomy.stages._run import In, Ins, Job, Outs, run


def main(job: Job, *, notebook: In, inputs: Ins, published: In, captions: In, outputs: Outs) -> None:
    """Execute the notebook with this job's files as parameters.

    The executed notebook and its HTML form are a log (results/<study>/notebooks/): they hold times and random ids and
    are not the same bytes twice. The outputs are.

    Raises:
        ArtifactError: a cell failed (the executed notebook shows which), or an output was not written.
    """
    if sys.platform == "win32":
        asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())
    results = Path("results") / job.study
    executed = results / "notebooks" / notebook.name
    executed.parent.mkdir(parents=True, exist_ok=True)
    for folder in ("tables", "figures"):
        (results / folder).mkdir(parents=True, exist_ok=True)
    try:
        execute(
            notebook,
            executed,
            parameters={
                "study": job.study,
                "inputs": [str(path) for path in inputs],
                "published": str(published),
                "tables": str(results / "tables"),
                "figures": str(results / "figures"),
                "confidence": job.spec.confidence,
                "emergence": job.spec.toy.evaluation.emergence,
                **job.spec.get("language", {}),
            },
        )
    except papermill.PapermillExecutionError as error:
        raise ArtifactError(
            f"{notebook}: cell {error.exec_count} failed: {error.ename}: {error.evalue}; see {executed}"
        ) from None
    if lost := [str(path) for path in outputs if not path.exists()]:
        raise ArtifactError(f"{notebook}: ran, but did not write {', '.join(lost)}")
    write_text_atomic(executed.with_suffix(".html"), as_html(executed))


def execute(notebook: Path, executed: Path, parameters: dict[str, Any]) -> None:
    """Run a notebook's cells in a kernel that nobody else can reach, and keep what they print.

    A kernel left to itself listens on six TCP ports. This one is spoken to through sockets in a folder that its owner
    alone may open; a temporary one, as the name of such a socket must be short. Windows has no such sockets in ZeroMQ.
    """
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:

        class Private(AsyncKernelManager):
            def __init__(self, **given: Any) -> None:
                if sys.platform != "win32":
                    given |= {"transport": "ipc", "connection_file": f"{folder}/kernel.json"}
                super().__init__(**given)
                if self.kernel_spec:
                    self.kernel_spec.argv[:3] = [sys.executable, "-m", "anatomy.start", "ipykernel_launcher"]

        options = {"kernel_name": "python3", "progress_bar": False, "kernel_manager_class": Private}
        papermill.execute_notebook(str(notebook), str(executed), parameters, **options)


def as_html(executed: Path) -> str:
    """The executed notebook as one HTML page that loads nothing from elsewhere."""
    exporter = HTMLExporter(mathjax_url="", require_js_url="", mermaid_js_url="", embed_images=True)
    return exporter.from_notebook_node(nbformat.read(executed, as_version=4))[0]


if __name__ == "__main__":
    run(main)
