/** Make the map, connect it to the state, and take it away again. */
import {effect} from '@preact/signals';
import {AttributionControl, Map as MapLibreMap, ScaleControl, setWorkerCount, setWorkerUrl} from 'maplibre-gl';
import type {MapOptions, PointLike} from 'maplibre-gl';
import {openViewOf} from '../actions.ts';
import type {ViewKey} from '../api.ts';
import {clickMap} from '../search_actions.ts';
import {drawing, hoveredHit, markedCard, pointer, position, swipe, theme, viewKey, where} from '../state.ts';
import {viewKeyOf} from '../url.ts';
import {followAnswer} from './answer_layers.ts';
import {baseLayers, baseStyle, builtFile, mapColours, repaint} from './base_style.ts';
import {WORLD, map as current, setMap, showWorldOn, zoomBy} from './camera.ts';
import {drewJustNow} from './drawing.ts';
import {followState, mapBusy} from './layers.ts';
import type {ShownDates} from './layers.ts';
import {followMarks} from './marks.ts';
import {beginWithMovement} from './mouse_pan.ts';
import {addVectorLayers, vectorLayers} from './vector_layers.ts';
import {visibleMiddle} from './visible_part.ts';

setWorkerUrl(builtFile('map-worker'));
setWorkerCount(1);

/** Make a map with the base in a container. The swipe makes a second one with it. */
export function makeMap(container: HTMLElement, options: Partial<MapOptions> = {}): MapLibreMap {
    return new MapLibreMap({
        container,
        style: baseStyle(mapColours()),
        ...WORLD,
        attributionControl: false,
        dragRotate: false,
        pitchWithRotate: false,
        touchPitch: false,
        maxZoom: 22,
        maxPitch: 0,
        fadeDuration: 0,
        locale: {'Map.Title': 'Map. Arrow keys move it, plus and minus zoom, Enter takes the tile in the middle'},
        ...options,
    });
}

/** Move the map when the URL's "back" or "forward" has changed the position. */
function followPosition(map: MapLibreMap): () => void {
    let own = false;
    const read = (): void => {
        const {lng, lat} = map.getCenter().wrap();
        own = true;
        position.value = {lon: lng, lat, zoom: map.getZoom()};
        own = false;
    };
    // A map that has not moved shows the world, and the URL then names no place.
    map.on('moveend', read);
    return effect(() => {
        const target = position.value;
        if (own || !target) return;
        const {lng, lat} = map.getCenter().wrap();
        const close = Math.abs(lng - target.lon) + Math.abs(lat - target.lat) < 1e-5 && Math.abs(map.getZoom() - target.zoom) < 0.01;
        if (!close) map.jumpTo({center: [target.lon, target.lat], zoom: target.zoom});
    });
}

/** Return the dates that this map shows: those of the filter, or the date on the left of the divider. */
function mainDates(): ShownDates {
    const left = swipe.value?.left;
    return left === undefined ? where.value : {since: left, until: left};
}

/** Return the properties of the topmost feature of some layers under a point of the map. */
function featureAt(map: MapLibreMap, point: PointLike, layers: string[]): Record<string, unknown> | null {
    const present = layers.filter((id) => map.getLayer(id));
    return map.queryRenderedFeatures(point, {layers: present})[0]?.properties ?? null;
}

function cardAt(map: MapLibreMap, point: PointLike): ViewKey | null {
    const properties = featureAt(map, point, ['places-dot', 'views-fill']);
    return properties ? viewKeyOf(`${String(properties['kind'])}/${String(properties['id'])}`) : null;
}

/** Mark what is under the pointer, and take what is clicked: a tile of the open view, or a view of the store. */
function followPointer(map: MapLibreMap): void {
    const canvas = map.getCanvas();
    map.on('mousemove', ({lngLat, point}) => {
        pointer.value = [lngLat.lng, lngLat.lat];
        if (drawing.value) return;
        const name = viewKey.value ? featureAt(map, point, ['hits-fill'])?.['name'] : null;
        hoveredHit.value = typeof name === 'string' ? name : null;
        const card = viewKey.value ? null : cardAt(map, point);
        if (!viewKey.value) markedCard.value = card;
        canvas.classList.toggle('over-target', card !== null || hoveredHit.value !== null);
    });
    map.on('mouseout', () => {
        pointer.value = null;
        hoveredHit.value = null;
        if (!viewKey.value) markedCard.value = null;
    });
    const take = (point: PointLike, lon: number, lat: number): void => {
        if (drawing.value || drewJustNow()) return;
        if (viewKey.value) return void clickMap(lon, lat);
        const card = cardAt(map, point);
        if (card) openViewOf(card);
    };
    map.on('click', ({lngLat, point}) => take(point, lngLat.wrap().lng, lngLat.lat));
    canvas.addEventListener('keydown', (event) => {
        if (event.key !== 'Enter') return;
        const middle = visibleMiddle();
        const {lng, lat} = map.unproject(middle).wrap();
        take(middle, lng, lat);
    });
}

/**
 * Let a click draw nothing. MapLibre begins a pan with each press of the mouse, and draws the whole map when the
 * button is released. Without a graphics card, this takes longer than the search for the neighbours.
 */
function panFromFirstMovement(map: MapLibreMap): void {
    beginWithMovement(map.dragPan._mousePan);
    // A press still ends a movement of the map.
    map.on('mousedown', () => {
        if (map.isMoving()) map.stop();
    });
}

/** Steps of the zoom, by the key. */
const ZOOM_KEYS: Readonly<Record<string, number>> = {'+': 1, '=': 1, '-': -1};

/** Let the keys plus and minus keep the place at the cross. MapLibre would keep the middle of the whole map. */
function followZoomKeys(map: MapLibreMap): void {
    map.getCanvas().addEventListener('keydown', (event) => {
        const steps = ZOOM_KEYS[event.key];
        if (steps === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
        event.stopPropagation();
        zoomBy(steps);
    });
}

/** Paint the map again when the theme changes. */
export function followTheme(map: MapLibreMap): () => void {
    const paint = (): void => {
        const colours = mapColours();
        repaint(map, [...baseLayers(colours), ...vectorLayers(colours)]);
    };
    const query = matchMedia('(prefers-color-scheme: dark)');
    query.addEventListener('change', paint);
    const end = effect(() => {
        void theme.value;
        paint();
    });
    return () => {
        query.removeEventListener('change', paint);
        end();
    };
}

/** Put the scale and the sources of the base into an element of the page. Return a function that removes them. */
function addNotes(map: MapLibreMap, place: HTMLElement): () => void {
    const notes = [new AttributionControl({compact: false}), new ScaleControl({maxWidth: 96, unit: 'metric'})];
    for (const note of notes) place.append(note.onAdd(map));
    return () => {
        for (const note of notes) note.onRemove();
    };
}

/**
 * Make the page's map. Return a function that removes it.
 *
 * Args:
 *     container: Element that the map fills.
 *     notes: Element for the scale and the sources of the base. MapLibre's own place for them may be covered.
 */
export function mountMap(container: HTMLElement, notes: HTMLElement): () => void {
    const start = position.peek();
    const map = makeMap(container, start ? {center: [start.lon, start.lat], zoom: start.zoom} : {});
    if (!start) showWorldOn(map);
    map.touchZoomRotate.disableRotation();
    map.keyboard.disableRotation();
    panFromFirstMovement(map);
    const ends = [addNotes(map, notes), followMarks()];
    map.once('style.load', () => {
        addVectorLayers(map, mapColours());
        ends.push(followState(map, mainDates), followAnswer(map), followPosition(map), followTheme(map));
        followPointer(map);
        followZoomKeys(map);
        setMap(map);
    });
    map.on('dataloading', () => {
        mapBusy.value = true;
    });
    map.on('idle', () => {
        mapBusy.value = false;
    });
    return () => {
        for (const end of ends) end();
        if (current.peek() === map) setMap(null);
        map.remove();
    };
}
