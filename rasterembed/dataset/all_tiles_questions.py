"""The methods of a dataset and of a collection that ask a question about all tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rasterembed.known_parameters import known_parameters

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import ArrayLike

    from rasterembed.collection.collection import Collection
    from rasterembed.dataset.dataset import Dataset
    from rasterembed.search.batch.result_file import BatchResult
    from rasterembed.search.output_file import OutputFile
    from rasterembed.search.query import Query


class AllTilesQuestions:
    """Methods that `Dataset` and `Collection` have in common.

    Of a collection, the tiles of its table are used. See docs/neighbours.md.
    """

    @property
    def _owner(self) -> Dataset | Collection:
        return cast("Dataset | Collection", self)

    @known_parameters
    def neighbours(
        self, out: OutputFile | Path | str, k: int | None = None, *, picture: OutputFile | Path | str | None = None
    ) -> BatchResult:
        """Write the nearest other tiles of every tile to a Parquet file.

        See `rasterembed.search.batch.neighbours.write_neighbours`.

        Args:
            out: the file, such as `neighbours.parquet`.
            k: number of neighbours of a tile. The default is 10.
            picture: PNG file for a histogram of the distances and examples.

        Example:
            >>> print(dataset.neighbours("neighbours.parquet", k=5))  # doctest: +SKIP
        """
        from rasterembed.search.batch.limits import DEFAULT_NEIGHBOURS
        from rasterembed.search.batch.neighbours import write_neighbours

        return write_neighbours(self._owner, out, DEFAULT_NEIGHBOURS if k is None else k, picture=picture)

    @known_parameters
    def deduplicate(
        self,
        out: OutputFile | Path | str,
        threshold: float | None = None,
        *,
        picture: OutputFile | Path | str | None = None,
    ) -> BatchResult:
        """Write groups of almost equal tiles to a Parquet file, and which tile of each group is kept.

        See `rasterembed.search.batch.deduplicate.write_deduplicated`.

        Args:
            out: the file, such as `groups.parquet`.
            threshold: largest cosine distance of a tile to the kept tile of its group. The default is 0.01.
            picture: PNG file with the largest groups.

        Example:
            >>> print(dataset.deduplicate("groups.parquet", 0.02))  # doctest: +SKIP
        """
        from rasterembed.search.batch.deduplicate import write_deduplicated
        from rasterembed.search.batch.limits import DEFAULT_THRESHOLD

        return write_deduplicated(
            self._owner, out, DEFAULT_THRESHOLD if threshold is None else threshold, picture=picture
        )

    @known_parameters
    def cluster(
        self,
        out: OutputFile | Path | str,
        classes: int | None = None,
        *,
        seed: int = 0,
        picture: OutputFile | Path | str | None = None,
    ) -> BatchResult:
        """Divide the tiles into classes by k-means, and write the class of every tile to a Parquet file.

        See `rasterembed.search.batch.cluster.write_classes`.

        Args:
            out: the file, such as `classes.parquet`.
            classes: number of classes. The default is 12.
            seed: seed of the first centres.
            picture: PNG file for a map of the classes and examples.

        Example:
            >>> print(dataset.cluster("classes.parquet", 8))  # doctest: +SKIP
        """
        from rasterembed.search.batch.cluster import write_classes
        from rasterembed.search.batch.limits import DEFAULT_CLASSES

        return write_classes(
            self._owner, out, DEFAULT_CLASSES if classes is None else classes, seed=seed, picture=picture
        )

    @known_parameters
    def diversify(
        self,
        out: OutputFile | Path | str,
        count: int | None = None,
        *,
        min_valid_fraction: float | None = None,
        seed: int | None = None,
        picture: OutputFile | Path | str | None = None,
    ) -> BatchResult:
        """Choose tiles that differ as much as possible, for example to label them, and write them to a file.

        See `rasterembed.search.batch.diversify.write_diverse_tiles`.

        Args:
            out: the file: `.geojson`, `.parquet` or `.csv`.
            count: number of tiles. The default is 50.
            min_valid_fraction: smallest share of valid pixels of a chosen tile. The default is 0.9.
            seed: begin with a random tile, chosen by this seed. By default, the tile nearest to the mean is the first.
            picture: PNG file for a sheet with the chosen tiles.

        Example:
            >>> print(dataset.diversify("sample.geojson", 20))  # doctest: +SKIP
        """
        from rasterembed.search.batch.diversify import write_diverse_tiles
        from rasterembed.search.batch.limits import DEFAULT_SAMPLE, DEFAULT_VALID_FRACTION

        return write_diverse_tiles(
            self._owner,
            out,
            DEFAULT_SAMPLE if count is None else count,
            min_valid_fraction=DEFAULT_VALID_FRACTION if min_valid_fraction is None else min_valid_fraction,
            seed=seed,
            picture=picture,
        )

    @known_parameters
    def similarities(self, query: Query | None = None, *, vector: ArrayLike | None = None) -> pa.Table:
        """Return the similarity of every tile to a query, as a table in memory.

        See `rasterembed.search.batch.similarity.similarity_table`.

        Args:
            query: an example, such as a tile or an image. Give either `query` or `vector`.
            vector: a vector of the same model, shape (dimensions,). It need not be normalised.

        Returns:
            The columns `dataset_id`, `tile_id` and `similarity`: 1 minus the cosine distance.

        Example:
            >>> dataset.similarities(Query(tile="r000008_c000008"))["similarity"]  # doctest: +SKIP
        """
        from rasterembed.search.batch.similarity import similarity_table

        return similarity_table(self._owner, query, vector=vector)
