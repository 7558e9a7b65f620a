/** Keep the state and the browser's URL equal. */
import {batch, effect} from '@preact/signals';
import {colour, imageryShown, k, opacity, outlinesShown, position, query, swipe, viewKey, where} from './state.ts';
import {readUrl, writeUrl} from './url.ts';
import type {SharedState} from './url.ts';

/** Whether the change under way comes from the map's movement only, or from the URL itself. */
let quiet = 0;
/** Shortest time between two changes of the URL by the map, in milliseconds: browsers refuse too many. */
const PAUSE = 300;
let timer: number | undefined;

function currentState(): SharedState {
    return {
        view: viewKey.value,
        position: position.value,
        colour: colour.value,
        opacity: opacity.value,
        imagery: imageryShown.value,
        outlines: outlinesShown.value,
        query: query.value,
        where: where.value,
        k: k.value,
        swipe: swipe.value,
    };
}

/** Return the part of a URL's text that names a choice of the person, without the place of the map. */
function choicesOf(text: string): string {
    const parameters = new URLSearchParams(text);
    for (const name of ['at', 'opacity']) parameters.delete(name);
    return parameters.toString();
}

/** Set all signals from the URL. */
function applyUrl(): void {
    const state = readUrl(location.search);
    quiet += 1;
    batch(() => {
        viewKey.value = state.view;
        position.value = state.position;
        colour.value = state.colour;
        opacity.value = state.opacity;
        imageryShown.value = state.imagery;
        outlinesShown.value = state.outlines;
        query.value = state.query;
        where.value = state.where;
        k.value = state.k;
        swipe.value = state.swipe;
    });
    quiet -= 1;
}

/**
 * Read the URL, then follow: a choice adds an entry to the history, and a movement of the map replaces the last one.
 *
 * Args:
 *     restored: Called after "back" or "forward" has set the signals.
 */
export function followHistory(restored: () => void): void {
    applyUrl();
    addEventListener('popstate', () => {
        clearTimeout(timer);
        applyUrl();
        restored();
    });
    effect(() => {
        const text = writeUrl(currentState());
        if (quiet > 0 || text === location.search) return;
        clearTimeout(timer);
        const url = `${location.pathname}${text}`;
        if (choicesOf(text) !== choicesOf(location.search)) history.pushState(null, '', url);
        else timer = window.setTimeout(() => history.replaceState(null, '', url), PAUSE);
    });
}

/** Run `change` without a new entry in the history: the page corrects or completes the state itself. */
export function withoutEntry(change: () => void): void {
    quiet += 1;
    batch(change);
    quiet -= 1;
    history.replaceState(history.state, '', `${location.pathname}${writeUrl(currentState())}`);
}
