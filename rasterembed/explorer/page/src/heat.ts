/** The similarity of all tiles to the query, as a colour of the map. */
import {effect} from '@preact/signals';
import {loadLegend, setColour} from './actions.ts';
import * as api from './api.ts';
import {cancel, load} from './loading.ts';
import {queryBody} from './search_actions.ts';
import {IDLE, colour, hasQuery, openView, query, similarity, viewKey} from './state.ts';

export const HEAT = 'similarity';

/** Shortest time between two requests because the service has forgotten a similarity, in milliseconds. */
const RENEW_PAUSE = 5000;

/** Colour that the map had before the similarity. */
let before: string | null = null;
let renewed = -RENEW_PAUSE;

/** Show the similarity of all tiles, or the colour before it. */
export function showHeat(shown: boolean): void {
    if (shown) {
        if (colour.value !== HEAT) before = colour.value;
        setColour(HEAT);
    } else {
        setColour(before ?? openView.value?.colours.find(({name}) => name !== HEAT)?.name ?? 'none');
    }
}

/** Ask for the similarity again, because the service does not know it any more. */
export function renewHeat(): void {
    if (colour.peek() !== HEAT || similarity.peek().state !== 'ready') return;
    const now = performance.now();
    if (now - renewed < RENEW_PAUSE) return;
    renewed = now;
    void loadHeat();
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
