/** The map itself and where it looks. Other modules move the map through these functions. */
import {signal} from '@preact/signals';
import type {LngLatBoundsLike, Map as MapLibreMap} from 'maplibre-gl';
import type {Bbox} from '../api.ts';
import {fittingZoom} from './shapes.ts';
import {coveredHeight, visibleMiddle, visibleSize} from './visible_part.ts';

/** Ids of the sources of map tiles that the service draws. */
const SERVICE_SOURCES = ['imagery', 'tiles'] as const;

/** The map, once it can draw; null before. */
export const map = signal<MapLibreMap | null>(null);

/** Where the map is until the places of the store are known. */
export const WORLD = {center: [10, 25] as [number, number], zoom: 1.4};

/** Largest distance of a box that is shown from the edge of the visible part, in pixels of the page. */
const LARGEST_MARGIN = 40;
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

/** Return the distance of a box from the edge of the visible part. The strip leaves little of a low window. */
function margin(): number {
    const {width, height} = visibleSize();
    return Math.min(LARGEST_MARGIN, width / 4, height / 4);
}

/** Return where the middle of the visible part is, as MapLibre's `offset` from the middle of the map. */
function offsetOf(value: MapLibreMap): [number, number] {
    return [0, -coveredHeight(value) / 2];
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
        const side = margin();
        const padding = {top: side, right: side, bottom: side + coveredHeight(value), left: side};
        value.fitBounds(boundsOf(bbox), {padding, maxZoom, duration});
    });
}

/** Return the zoom at which the whole of a box is visible. */
export function zoomOf(bbox: Bbox): number {
    const {width, height} = visibleSize();
    return Math.min(DEEPEST_FIT, fittingZoom(bbox, width - 2 * margin(), height - 2 * margin()));
}

/** Move a place in degrees to the middle of the visible part. The zoom stays if it is left out. */
export function flyTo(lon: number, lat: number, zoom?: number): void {
    whenMap((value) => {
        const center: [number, number] = [lon, lat];
        const target = {center, zoom: zoom ?? value.getZoom(), offset: offsetOf(value)};
        if (isCalm()) value.easeTo({...target, duration: 0});
        else value.flyTo({...target, duration: 900, essential: false});
    });
}

/** Show the box around the places of a store, or the whole Earth if the store has none. */
export function fitStore(bbox: Bbox | null): void {
    if (bbox) fitBbox(bbox, false, DEEPEST_STORE_FIT);
    else whenMap(showWorldOn);
}

/** Move the map up until a place is visible, if something has come to lie over it. */
export function uncover(lon: number, lat: number): void {
    whenMap((value) => {
        if (value.isMoving()) {
            void value.once('moveend', () => uncover(lon, lat));
            return;
        }
        const below = value.project([lon, lat]).y - (visibleSize().height - margin());
        if (below > 0) value.panBy([0, below], {duration: isCalm() ? 0 : 300});
    });
}

/** Show the whole Earth on a map, at once. */
export function showWorldOn(value: MapLibreMap): void {
    value.easeTo({...WORLD, offset: offsetOf(value), duration: 0});
}

/** Zoom in by some steps, or out if `steps` is negative. The middle of the visible part stays where it is. */
export function zoomBy(steps: number): void {
    whenMap((value) => {
        const around = value.unproject(visibleMiddle());
        value.easeTo({zoom: value.getZoom() + steps, around, duration: isCalm() ? 0 : 200});
    });
}

/** Ask again for all map tiles of the service, because some may have failed. */
export function reloadMapTiles(): void {
    const value = map.peek();
    for (const id of SERVICE_SOURCES) {
        if (value?.getSource(id)) value.refreshTiles(id);
    }
}
