"""Answer questions about all tiles of a dataset or a collection at once.

- `neighbours` finds the nearest tiles of every tile.
- `deduplicate` finds groups of tiles that are almost equal, and keeps one tile of each group.
- `cluster` divides the tiles into classes.
- `diversify` chooses tiles that differ as much as possible, for example to label them.

Each writes a file and, if asked, a picture. `all_tiles` opens the tiles with their vectors. `nearest` compares vectors,
and `vector_lists` divides many vectors into lists, so that a tile is compared only with the tiles of near lists.
`result_file` writes the files, and `pictures` and `class_picture` draw the pictures. `limits` has defaults and limits.
"""
