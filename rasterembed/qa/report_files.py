"""Files of a quality report: draw its pictures, and write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rasterembed.errors import RasterEmbedError, one_line
from rasterembed.qa.metric_report import MetricReport
from rasterembed.store.layout import Layout
from rasterembed.store.object_store import ObjectStore


class Pictures:
    """The pictures of a report.

    Args:
        names: names of all pictures that such a report can have.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names = names
        self._drawn: dict[str, bytes] = {}
        self.notes: list[str] = []
        """Sentences about pictures that could not be drawn, with the reasons."""

    def draw(self, name: str, picture: Callable[[], bytes]) -> None:
        """Draw a picture. If it cannot be drawn, the report gets a note, and the checks go on.

        If the error ended the checks, a dataset would stay in state `embedded`, and every new run would end with the
        same error.

        Args:
            name: name of the picture file.
            picture: function that returns the content of the file.

        Raises:
            RasterEmbedError: if the store or a shard cannot be read. A new run may succeed.
        """
        try:
            self._drawn[name] = picture()
        except RasterEmbedError:
            raise
        except Exception as error:
            self.notes.append(f"{name} could not be drawn: {type(error).__name__}: {one_line(error)}")

    @property
    def files(self) -> dict[str, bytes | None]:
        """Content of each picture file by name, in the order of the names. None if the picture was not drawn."""
        return {name: self._drawn.get(name) for name in self._names}

    @property
    def drawn(self) -> tuple[str, ...]:
        """Names of the pictures that were drawn, in the order of the names."""
        return tuple(name for name in self._names if name in self._drawn)


def write_report(
    store: ObjectStore,
    layout: Layout,
    report: MetricReport,
    markdown: str,
    pictures: Pictures,
) -> None:
    """Write the files of a report. Delete pictures of an earlier report that this report does not have.

    Args:
        store: the store.
        layout: layout of the dataset or the collection.
        report: the report.
        markdown: the report as Markdown.
        pictures: the pictures of the report.
    """
    for name, content in pictures.files.items():
        if content is not None:
            store.write(layout.qa_file(name), content)
        else:
            store.delete(layout.qa_file(name))
    store.write(layout.qa_report_markdown, markdown.encode())
    # Write `report.json` last. It names the other files, so they must exist before it.
    store.write(layout.qa_report, report.model_dump_json(indent=1).encode())
