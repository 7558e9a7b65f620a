/** What the searching side of the page shows beside the shared state: it is not in the URL, and ends with the page. */
import {signal} from '@preact/signals';
import type {Geometry} from 'geojson';
import type {HitProperties, Tile} from './api.ts';

/** The tile whose details are shown: one of the answer, or one that was clicked. */
export const details = signal<Tile | HitProperties | null>(null);

/** Whether the dialog for exports is open. */
export const exporting = signal(false);

/** What happens to an image that was dropped: its upload is under way, or why it failed. */
export const upload = signal<{state: 'idle'} | {state: 'running'; name: string} | {state: 'failed'; text: string}>({
    state: 'idle',
});

/** Number of corners of the shape that is being drawn. */
export const corners = signal(0);

/** Outlines of tiles that were seen, by name: the answer does not hold those of its examples. */
export const seenOutlines = signal<ReadonlyMap<string, Geometry>>(new Map());

/** All tiles at the place that was clicked last. Several scenes may show one place. */
export const tilesAtClick = signal<readonly Tile[]>([]);

/** A message beside the query, such as that no tile lies at a place. */
export const notice = signal<string | null>(null);

/** Largest number of outlines that are kept. */
const MOST_OUTLINES = 5000;

export function rememberOutlines(outlines: Iterable<readonly [string, Geometry | null]>): void {
    const next = new Map(seenOutlines.value);
    for (const [name, outline] of outlines) if (outline) next.set(name, outline);
    const surplus = next.size - MOST_OUTLINES;
    for (const name of [...next.keys()].slice(0, Math.max(0, surplus))) next.delete(name);
    seenOutlines.value = next;
}

export function nameOfTile({dataset_id, tile_id}: {dataset_id: string; tile_id: string}): string {
    return `${dataset_id}/${tile_id}`;
}
