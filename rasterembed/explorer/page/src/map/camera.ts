/** The map itself and where it looks. Other modules move the map through these functions. */
import {signal} from '@preact/signals';
import type {LngLatBoundsLike, Map as MapLibreMap} from 'maplibre-gl';
import type {Bbox} from '../api.ts';
import {fittingZoom} from './shapes.ts';

/** Ids of the sources of map tiles that the service draws. */
const SERVICE_SOURCES = ['imagery', 'tiles'] as const;

/** The map, once it can draw; null before. */
export const map = signal<MapLibreMap | null>(null);

/** Where the map is until the places of the store are known. */
export const WORLD = {center: [10, 25] as [number, number], zoom: 1.4};

const MARGIN = 40;
/** Deepest zoom that fitting a small area chooses. */
const DEEPEST_FIT = 17;
/** Deepest zoom for the places of a store. Nearer, the coast fades out, and nothing tells where on Earth they are. */
const DEEPEST_STORE_FIT = 6.5;
let waiting: ((value: MapLibreMap) => void)[] = [];

/** Run `action` with the map: now, or when the map is made. */
function whenMap(action: (value: MapLibreMap) => void): void {
    const value = map.peek();
    if (value) action(value);
    else waiting.push(action);
}

export function setMap(value: MapLibreMap | null): void {
    map.value = value;
    if (!value) return;
    const actions = waiting;
    waiting = [];
    for (const action of actions) action(value);
}

const isCalm = (): boolean => matchMedia('(prefers-reduced-motion: reduce)').matches;

/** Return the bounds of a box. A box that crosses the antimeridian gets an eastern edge above 180 degrees. */
function boundsOf([west, south, east, north]: Bbox): LngLatBoundsLike {
    const limit = 85;
    const clamp = (latitude: number): number => Math.min(limit, Math.max(-limit, latitude));
    return [
        [west, clamp(south)],
        [west > east ? east + 360 : east, clamp(north)],
    ];
}

/**
 * Show the whole of a box.
 *
 * Args:
 *     isFlight: Whether the map flies there. A flight asks for map tiles on its way, so a new view begins without one.
 */
export function fitBbox(bbox: Bbox, isFlight: boolean, maxZoom = DEEPEST_FIT): void {
    whenMap((value) => {
        const duration = isFlight && !isCalm() ? 900 : 0;
        value.fitBounds(boundsOf(bbox), {padding: MARGIN, maxZoom, duration});
    });
}

/** Return the zoom at which the whole of a box is visible. Before the map exists, the size of the page must do. */
export function zoomOf(bbox: Bbox): number {
    const {clientWidth, clientHeight} = map.peek()?.getContainer() ?? document.documentElement;
    return Math.min(DEEPEST_FIT, fittingZoom(bbox, clientWidth - 2 * MARGIN, clientHeight - 2 * MARGIN));
}

/** Move to a place in degrees. The zoom stays if it is left out. */
export function flyTo(lon: number, lat: number, zoom?: number): void {
    whenMap((value) => {
        const center: [number, number] = [lon, lat];
        const target = {center, zoom: zoom ?? value.getZoom()};
        if (isCalm()) value.jumpTo(target);
        else value.flyTo({...target, duration: 900, essential: false});
    });
}

/** Show the box around the places of a store, or the whole Earth if the store has none. */
export function fitStore(bbox: Bbox | null): void {
    if (bbox) fitBbox(bbox, false, DEEPEST_STORE_FIT);
    else whenMap((value) => value.jumpTo(WORLD));
}

export function zoomBy(steps: number): void {
    whenMap((value) => value.zoomTo(value.getZoom() + steps, {duration: isCalm() ? 0 : 200}));
}

/** Ask again for all map tiles of the service, because some may have failed. */
export function reloadMapTiles(): void {
    const value = map.peek();
    for (const id of SERVICE_SOURCES) {
        if (value?.getSource(id)) value.refreshTiles(id);
    }
}
