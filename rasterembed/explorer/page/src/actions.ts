/** What a person can do with the store, the view and its layers. */
import {batch} from '@preact/signals';
import * as api from './api.ts';
import type {ViewDetails, ViewKey} from './api.ts';
import {canPick} from './filters.ts';
import {counted} from './format.ts';
import {withoutEntry} from './history.ts';
import {cancel, load} from './loading.ts';
import {fitBbox, fitStore, zoomOf} from './map/camera.ts';
import {coveringBox} from './map/shapes.ts';
import {clearAnswer, searchAgain, showUploaded} from './search_actions.ts';
import {
    HEAT,
    IDLE,
    NO_COLOUR,
    NO_QUERY,
    NO_WHERE,
    classes,
    colour,
    imageryShown,
    legend,
    lightbox,
    opacity,
    outlinesShown,
    position,
    query,
    similarity,
    status,
    store,
    swipe,
    theme,
    valueOf,
    view,
    viewKey,
    where,
} from './state.ts';
import type {SwipeState} from './state.ts';
import {storeTheme} from './stored_theme.ts';
import type {Theme} from './stored_theme.ts';
import {colourParameters} from './tile_colours.ts';

export async function loadStore(): Promise<void> {
    const value = await load(store, api.getStore);
    if (!value) return;
    status.value = `${counted(value.datasets.length, 'dataset')} and ${counted(value.collections.length, 'collection')}.`;
    if (!viewKey.value && !position.value) showStore();
}

/** Move the map so that all datasets and collections with a place are visible. */
export function showStore(): void {
    const known = valueOf(store.peek());
    const cards = known ? [...known.datasets, ...known.collections] : [];
    fitStore(coveringBox(cards.flatMap(({bbox}) => (bbox ? [bbox] : []))));
}

const isSame = (a: ViewKey | null, b: ViewKey | null): boolean => a?.kind === b?.kind && a?.id === b?.id;

/**
 * Return the colour that a view begins with. Where the map shows the rasters, the tiles have no colour at first. From
 * far away, the rasters are not drawn: then the tiles have the view's first colour.
 */
function firstColour({bbox, colours, min_zoom}: ViewDetails): string {
    const zoom = position.value?.zoom ?? (bbox && zoomOf(bbox));
    const isNear = imageryShown.value && zoom !== null && zoom >= min_zoom;
    return isNear ? NO_COLOUR : (colours[0]?.name ?? NO_COLOUR);
}

/** Load the view that the state names, with its legend and its answer. The position of the map stays if the URL has one. */
export async function loadView(): Promise<void> {
    const key = viewKey.value;
    // A resize of the window sets the position too. So only a position that was known before the request counts.
    const isPlaced = position.value !== null;
    const before = valueOf(view.peek());
    cancel(legend);
    // Until the view is loaded, no legend of another view may be taken for its own.
    if (legend.value.state === 'loading' || !isSame(before, key)) legend.value = IDLE;
    if (!key) {
        cancel(view);
        view.value = IDLE;
        return;
    }
    const details = await load(view, (signal) => api.getView(key, signal), isSame(before, key));
    if (!details || !isSame(viewKey.value, key)) return;
    status.value = `${details.id} is open.`;
    withoutEntry(() => {
        const known = details.colours.some(({name}) => name === colour.value);
        if (!known && colour.value !== NO_COLOUR) colour.value = firstColour(details);
        const days = new Set(details.dates.map(({date}) => date));
        if (swipe.value && !(days.has(swipe.value.left) && days.has(swipe.value.right))) swipe.value = null;
        // The service refuses the choice for views without its control. A changed URL may have it all the same.
        if (where.value.pick !== null && !canPick(details)) where.value = {...where.value, pick: null};
    });
    if (!isPlaced && details.bbox) fitBbox(details.bbox, false);
    void loadLegend();
    void searchAgain();
}

/** Forget the query, the answer and the choices of the view before. The caller batches this with its own changes. */
function forgetView(): void {
    clearAnswer();
    query.value = NO_QUERY;
    where.value = NO_WHERE;
    showUploaded(null);
    legend.value = IDLE;
    lightbox.value = null;
    swipe.value = null;
    colour.value = null;
    position.value = null;
}

/** Open a view, as a new entry in the history. */
export function openViewOf(key: ViewKey): void {
    batch(() => {
        forgetView();
        viewKey.value = {kind: key.kind, id: key.id};
    });
    void loadView();
}

/** Go back to the list of the store, and to the map of its places. */
export function closeView(): void {
    batch(() => {
        forgetView();
        viewKey.value = null;
    });
    void loadView();
    showStore();
}

/** Load the legend of the current colour. The similarity has one only when the service has computed it. */
export async function loadLegend(): Promise<void> {
    const key = viewKey.value;
    const name = colour.value;
    const heat = valueOf(similarity.value)?.similarity ?? null;
    if (!key || !name || name === NO_COLOUR || (name === HEAT && !heat)) {
        cancel(legend);
        legend.value = IDLE;
        return;
    }
    const choice = colourParameters(name, heat, classes.value);
    await load(legend, (signal) => api.getLegend(key, choice, signal), false);
}

export function setColour(name: string): void {
    colour.value = name;
    void loadLegend();
}

/** Divide the tiles into another number of classes. */
export function setClasses(value: number): void {
    batch(() => {
        classes.value = value;
        void loadLegend();
    });
}

export function setOpacity(value: number): void {
    opacity.value = Math.min(1, Math.max(0, value));
}

export function showImagery(shown: boolean): void {
    imageryShown.value = shown;
}

export function showOutlines(shown: boolean): void {
    outlinesShown.value = shown;
}

/** Move the map so that the whole view is visible. */
export function fitView(): void {
    const bbox = valueOf(view.value)?.bbox;
    if (bbox) fitBbox(bbox, true);
}

export function setSwipe(value: SwipeState | null): void {
    swipe.value = value;
}

export function openLightbox(place: number): void {
    lightbox.value = place;
}

export function closeLightbox(): void {
    lightbox.value = null;
}

/** Choose light or dark, or follow the system. The choice stays in this browser. */
export function setTheme(value: Theme): void {
    // The map follows the signal, and reads its new colours from the style sheet: so the page changes first.
    document.documentElement.dataset['theme'] = value;
    theme.value = value;
    storeTheme(value);
}
