/** What a search marks on the map: the tiles of the answer with their ranks, the examples, and the sketch of a drawing. */
import {effect} from '@preact/signals';
import type {Feature, FeatureCollection, Geometry} from 'geojson';
import type {Map as MapLibreMap} from 'maplibre-gl';
import type {Hit} from '../api.ts';
import {checkHeat} from '../heat.ts';
import {hoveredHit} from '../state.ts';
import {SKETCH} from './draw_tool.ts';
import {centreOnMap} from './flights.ts';
import {shownMarks} from './marks.ts';
import type {Marks} from './marks.ts';
import {MOST_BADGES, addBadges, badgeName} from './rank_badges.ts';
import {HOVERED, MARKS, featureOf, isMark, setData} from './vector_layers.ts';
import type {Mark} from './vector_layers.ts';

const NOTHING: FeatureCollection = {type: 'FeatureCollection', features: []};
const LIKED = '#1a7f37';
const UNLIKED = '#c62828';
const SKETCHED = '#1f6feb';

/** Add the layers to a map, and let them follow the state. Return a function that ends this. */
export function followAnswer(map: MapLibreMap): () => void {
    map.addSource(SKETCH, {type: 'geojson', data: NOTHING});
    addExampleLayers(map);
    addSketchLayers(map);
    map.addLayer({
        id: 'ranks',
        type: 'symbol',
        source: MARKS,
        filter: isMark('rank'),
        // Of ranks that would overlap, the map shows the smaller one.
        layout: {'icon-image': ['get', 'badge'], 'symbol-sort-key': ['get', 'rank'], 'icon-padding': 1},
    });
    const rested = map.on('idle', () => void checkHeat());
    const ends = [effect(() => showMarks(map, shownMarks.value)), followHover(map)];
    return () => {
        rested.unsubscribe();
        for (const end of ends) end();
    };
}

function showMarks(map: MapLibreMap, {hits, selected, examples}: Marks): void {
    addBadges(map, hits.length);
    setData(map, MARKS, [
        ...hits.flatMap(({id, geometry}) => markOf('hit', geometry, {name: id})),
        ...hits.slice(0, MOST_BADGES).flatMap((hit) => rankOf(hit)),
        ...markOf('selected', selected?.geometry ?? null),
        ...examples.flatMap(({tile, role}) => markOf(role, tile.geometry)),
    ]);
}

function markOf(mark: Mark, geometry: Geometry | null, properties: Record<string, unknown> = {}): Feature[] {
    return featureOf(geometry, {...properties, mark});
}

function rankOf({geometry, properties}: Hit): Feature[] {
    const {rank} = properties;
    const coordinates = centreOnMap(properties, geometry);
    return markOf('rank', coordinates && {type: 'Point', coordinates}, {rank, badge: badgeName(rank)});
}

/** Let the look of a hit on the map follow the pointer. The map keeps its data, so this is quick. */
function followHover(map: MapLibreMap): () => void {
    let before: string | null = null;
    return effect(() => {
        const name = hoveredHit.value;
        if (before !== null) map.removeFeatureState({source: MARKS, id: before}, HOVERED);
        if (name !== null) map.setFeatureState({source: MARKS, id: name}, {[HOVERED]: true});
        before = name;
    });
}

function addExampleLayers(map: MapLibreMap): void {
    const examples = {source: MARKS, filter: isMark('like', 'unlike')};
    map.addLayer({
        id: 'examples-halo',
        type: 'line',
        ...examples,
        paint: {'line-color': '#ffffff', 'line-width': 6},
    });
    map.addLayer({
        id: 'examples',
        type: 'line',
        ...examples,
        paint: {'line-color': ['match', ['get', 'mark'], 'like', LIKED, UNLIKED], 'line-width': 3},
    });
}

function addSketchLayers(map: MapLibreMap): void {
    map.addLayer({
        id: 'sketch-fill',
        type: 'fill',
        source: SKETCH,
        filter: ['==', ['geometry-type'], 'Polygon'],
        paint: {'fill-color': SKETCHED, 'fill-opacity': 0.15},
    });
    map.addLayer({
        id: 'sketch-halo',
        type: 'line',
        source: SKETCH,
        filter: ['!=', ['geometry-type'], 'Point'],
        paint: {'line-color': '#ffffff', 'line-width': 5, 'line-opacity': 0.8},
    });
    map.addLayer({
        id: 'sketch',
        type: 'line',
        source: SKETCH,
        filter: ['!=', ['geometry-type'], 'Point'],
        paint: {'line-color': SKETCHED, 'line-width': 2.5},
    });
    map.addLayer({
        id: 'sketch-corners',
        type: 'circle',
        source: SKETCH,
        filter: ['==', ['geometry-type'], 'Point'],
        paint: {
            'circle-radius': 5,
            'circle-color': '#ffffff',
            'circle-stroke-color': SKETCHED,
            'circle-stroke-width': 2,
        },
    });
}
