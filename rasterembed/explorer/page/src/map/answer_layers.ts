/** What a search adds to the map beside the outlines of its tiles: ranks, liked and unliked tiles, and the sketch of a drawing. */
import {effect} from '@preact/signals';
import type {Feature, FeatureCollection} from 'geojson';
import type {Map as MapLibreMap} from 'maplibre-gl';
import {checkHeat} from '../heat.ts';
import {SKETCH} from './draw_tool.ts';
import {centreOnMap} from './flights.ts';
import {shownExamples, shownHits} from './marks.ts';
import {MOST_BADGES, addBadges, badgeName} from './rank_badges.ts';
import {setData} from './vector_layers.ts';

const NOTHING: FeatureCollection = {type: 'FeatureCollection', features: []};
const LIKED = '#1a7f37';
const UNLIKED = '#c62828';
const SKETCHED = '#1f6feb';

/** Add the layers to a map, and let them follow the state. Return a function that ends this. */
export function followAnswer(map: MapLibreMap): () => void {
    for (const id of ['examples', 'ranks', SKETCH]) map.addSource(id, {type: 'geojson', data: NOTHING});
    addExampleLayers(map);
    addSketchLayers(map);
    map.addLayer({
        id: 'ranks',
        type: 'symbol',
        source: 'ranks',
        // Of ranks that would overlap, the map shows the smaller one.
        layout: {'icon-image': ['get', 'badge'], 'symbol-sort-key': ['get', 'rank'], 'icon-padding': 1},
    });
    const rested = map.on('idle', () => void checkHeat());
    const ends = [
        effect(() => showRanks(map)),
        effect(() => {
            const features = shownExamples.value.flatMap(({tile, role}): Feature[] =>
                tile.geometry ? [{type: 'Feature', geometry: tile.geometry, properties: {role}}] : [],
            );
            setData(map, 'examples', features);
        }),
    ];
    return () => {
        rested.unsubscribe();
        for (const end of ends) end();
    };
}

function showRanks(map: MapLibreMap): void {
    const hits = shownHits.value.slice(0, MOST_BADGES);
    addBadges(map, hits.length);
    const features = hits.flatMap(({geometry, properties}): Feature[] => {
        const coordinates = centreOnMap(properties, geometry);
        const {rank} = properties;
        if (!coordinates) return [];
        const badge = badgeName(rank);
        return [{type: 'Feature', geometry: {type: 'Point', coordinates}, properties: {rank, badge}}];
    });
    setData(map, 'ranks', features);
}

function addExampleLayers(map: MapLibreMap): void {
    map.addLayer({
        id: 'examples-halo',
        type: 'line',
        source: 'examples',
        paint: {'line-color': '#ffffff', 'line-width': 6},
    });
    map.addLayer({
        id: 'examples',
        type: 'line',
        source: 'examples',
        paint: {'line-color': ['match', ['get', 'role'], 'like', LIKED, UNLIKED], 'line-width': 3},
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
