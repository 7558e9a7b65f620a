/** The similarity of all tiles to the query, as a colour of the map. */
import {effect} from '@preact/signals';
import {loadLegend, setColour} from './actions.ts';
import * as api from './api.ts';
import {cancel, load} from './loading.ts';
import {problemFrom} from './problems.ts';
import {queryBody} from './search_actions.ts';
import {HEAT, IDLE, NO_COLOUR, classes, colour, hasQuery, openView, query, similarity, valueOf, viewKey} from './state.ts';
import {colourParameters} from './tile_colours.ts';

/** Shortest time between two checks whether the service still knows the similarity, in milliseconds. */
const CHECK_PAUSE = 3000;

/** Colour that the map had before the similarity. */
let before: string | null = null;
let checked = -CHECK_PAUSE;

/** Show the similarity of all tiles, or the colour before it. */
export function showHeat(shown: boolean): void {
    if (shown) {
        if (colour.value !== HEAT) before = colour.value;
        setColour(HEAT);
    } else {
        // The colour before may be one of another view.
        const others = openView.value?.colours.filter(({name}) => name !== HEAT) ?? [];
        const isKnown = before === NO_COLOUR || others.some(({name}) => name === before);
        setColour((isKnown ? before : others[0]?.name) ?? NO_COLOUR);
    }
}

/**
 * Ask for the similarity again if the service does not know it any more, for example because it was started again.
 *
 * MapLibre does not tell that a map tile is missing, so the map asks for the legend after it has moved.
 */
export async function checkHeat(): Promise<void> {
    const key = viewKey.peek();
    const shown = valueOf(similarity.peek());
    const now = performance.now();
    if (!key || colour.peek() !== HEAT || shown === null || now - checked < CHECK_PAUSE) return;
    checked = now;
    try {
        await api.getLegend(key, colourParameters(HEAT, shown.similarity, classes.peek()));
    } catch (error) {
        const forgotten = problemFrom(error).type === 'unknown-similarity';
        if (forgotten && valueOf(similarity.peek()) === shown) void loadHeat();
    }
}

/** Ask for the similarity of all tiles to the current query. */
export async function loadHeat(): Promise<void> {
    const key = viewKey.peek();
    if (!key || !hasQuery.peek()) return;
    const body = queryBody(query.peek());
    const value = await load(similarity, (signal) => api.postSimilarity(key, body, signal), false);
    if (value) await loadLegend();
}

/** Ask whenever the similarity is shown and the query or the view has changed. Return a function that ends this. */
export function followHeat(): () => void {
    return effect(() => {
        const wanted = colour.value === HEAT && hasQuery.value && openView.value !== null;
        void query.value;
        if (wanted) {
            void loadHeat();
            return;
        }
        cancel(similarity);
        if (similarity.peek().state !== 'idle') similarity.value = IDLE;
    });
}
