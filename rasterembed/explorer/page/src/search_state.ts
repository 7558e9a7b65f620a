/** What the searching side of the page shows beside the shared state: it is not in the URL, and ends with the page. */
import {computed, signal} from '@preact/signals';
import type {Tile} from './api.ts';
import {answer} from './state.ts';

/** Name of the tile whose details are shown: one of the answer, or one that was clicked. */
export const details = signal<string | null>(null);

/** Whether the dialog for exports is open. */
export const exporting = signal(false);

/** What happens to an image that was dropped: its upload is under way, or why it failed. */
export const upload = signal<{state: 'idle'} | {state: 'running'; name: string} | {state: 'failed'; text: string}>({
    state: 'idle',
});

/** Number of corners of the shape that is being drawn. */
export const corners = signal(0);

/** All tiles at the place that was clicked last. Several scenes may show one place. */
export const tilesAtClick = signal<readonly Tile[]>([]);

/** Whether the service needs more than a moment for a click on the map. */
export const clickWaits = signal(false);

/** Whether an answer is on its way. Until it comes, the strip and the map show none. */
export const searching = computed(() => clickWaits.value || answer.value.state === 'loading');

/** Text of the field for a tile id or a place. It stays there until a query begins, so that a typing error can be mended. */
export const typed = signal('');

/** A message beside the query, such as that no tile lies at a place. */
export const notice = signal<string | null>(null);
