/** Keep the state and the browser's URL equal. */
import {batch, effect} from '@preact/signals';
import {classes, colour, imageryShown, k, opacity, outlinesShown, position, query, swipe, viewKey, where} from './state.ts';
import {readUrl, writeUrl} from './url.ts';
import type {SharedState} from './url.ts';

/** Time without a movement after which the URL follows it, in milliseconds: browsers refuse too many changes. */
const PAUSE = 150;
/** Longest pause within one pull of a slider, in milliseconds. */
const PULL = 1000;
/** Parameters of the URL that sliders set. Each pull sets them many times. */
const SLIDERS = ['k', 'valid', 'cloud', 'since', 'until'];

/** Number of changes under way that get no entry in the history, because they come from the URL or from the page. */
let quiet = 0;
/** URL that the last entry of the history gets when the timer ends. */
let pending: string | null = null;
let timer: number | undefined;
/** Names of the parameters that the last change of a slider changed, and its time. */
let pulled = {names: '', time: -PULL};

function currentState(): SharedState {
    return {
        view: viewKey.value,
        position: position.value,
        colour: colour.value,
        opacity: opacity.value,
        classes: classes.value,
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

/** Return the names of the parameters that differ between two texts, in the order of the alphabet. */
function changedNames(before: string, after: string): string[] {
    const [old, now] = [new URLSearchParams(before), new URLSearchParams(after)];
    const names = [...new Set([...old.keys(), ...now.keys()])];
    return names.filter((name) => old.getAll(name).join('\n') !== now.getAll(name).join('\n')).sort();
}

/** Return whether a change of the choices goes on with the pull of a slider that made the last entry of the history. */
function goesOn(before: string, after: string): boolean {
    const names = changedNames(before, after);
    const time = performance.now();
    const isSlider = names.every((name) => SLIDERS.includes(name));
    const isSame = isSlider && names.join() === pulled.names && time - pulled.time < PULL;
    pulled = {names: isSlider ? names.join() : '', time};
    return isSame;
}

function replaceUrl(): void {
    clearTimeout(timer);
    if (pending !== null) history.replaceState(history.state, '', pending);
    pending = null;
}

/** Drop the change of the URL that waits for the timer. */
function dropPending(): void {
    clearTimeout(timer);
    pending = null;
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
        classes.value = state.classes;
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
 * A whole pull of a slider is one choice.
 *
 * Args:
 *     restored: Called after "back" or "forward" has set the signals.
 */
export function followHistory(restored: () => void): void {
    applyUrl();
    addEventListener('popstate', () => {
        dropPending();
        pulled = {names: '', time: -PULL};
        applyUrl();
        restored();
    });
    effect(() => {
        const text = writeUrl(currentState());
        if (quiet > 0) return;
        const url = `${location.pathname}${text}`;
        const before = choicesOf(pending === null ? location.search : pending.slice(location.pathname.length));
        const now = choicesOf(text);
        if (before !== now && !goesOn(before, now)) {
            // The entry before keeps its last place of the map.
            replaceUrl();
            history.pushState(null, '', url);
            return;
        }
        dropPending();
        if (text === location.search) return;
        pending = url;
        timer = window.setTimeout(replaceUrl, PAUSE);
    });
}

/** Run `change` without a new entry in the history: the page corrects or completes the state itself. */
export function withoutEntry(change: () => void): void {
    quiet += 1;
    batch(change);
    quiet -= 1;
    dropPending();
    history.replaceState(history.state, '', `${location.pathname}${writeUrl(currentState())}`);
}
