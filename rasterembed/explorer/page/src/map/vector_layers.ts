/** The layers of outlines, hits and places: their sources and how they look. */
import type {Feature, Geometry} from 'geojson';
import type {
    DataDrivenPropertyValueSpecification,
    FilterSpecification,
    GeoJSONSource,
    LayerSpecification,
    Map as MapLibreMap,
} from 'maplibre-gl';
import type {MapColours} from './base_style.ts';

/** Source of everything that the map marks for an answer. With one source, an answer draws the map fewer times. */
export const MARKS = 'marks';

/** Sources of GeoJSON, all empty at first. */
const VECTOR_SOURCES = ['places', 'views', 'marked', 'outline', 'footprints', 'area', MARKS] as const;

type VectorSource = (typeof VECTOR_SOURCES)[number];

/** Kinds of features in the source `MARKS`, as their property `mark` names them. A rank is a number beside a hit. */
export type Mark = 'hit' | 'rank' | 'selected' | 'like' | 'unlike';

/** Name of the state of a hit that is under the pointer, on the map or in the strip. */
export const HOVERED = 'hovered';

/** Return the filter for some marks. */
export function isMark(...marks: Mark[]): FilterSpecification {
    return ['in', ['get', 'mark'], ['literal', marks]];
}

/** Return one of two numbers: the first for a hit under the pointer, the second for all others. */
function ifHovered(hovered: number, other: number): DataDrivenPropertyValueSpecification<number> {
    return ['case', ['boolean', ['feature-state', HOVERED], false], hovered, other];
}

const ROUND = {'line-join': 'round', 'line-cap': 'round'} as const;

function line(source: VectorSource, colour: string, width: number, more: {id?: string; opacity?: number} = {}): LayerSpecification {
    return {
        id: more.id ?? source,
        type: 'line',
        source,
        layout: ROUND,
        paint: {'line-color': colour, 'line-width': width, 'line-opacity': more.opacity ?? 1},
    };
}

function fill(source: VectorSource, colour: string, opacity: number): LayerSpecification {
    return {id: `${source}-fill`, type: 'fill', source, paint: {'fill-color': colour, 'fill-opacity': opacity}};
}

function dot(source: VectorSource, colour: string, halo: string, radius: number, opacity = 1): LayerSpecification {
    return {
        id: `${source}-dot`,
        type: 'circle',
        source,
        filter: ['==', ['geometry-type'], 'Point'],
        paint: {
            'circle-color': colour,
            'circle-radius': radius,
            'circle-opacity': opacity,
            'circle-stroke-color': halo,
            'circle-stroke-width': 1.5,
        },
    };
}

/** Return the layers in the order in which they are drawn. */
export function vectorLayers(colours: MapColours): LayerSpecification[] {
    const {accent, halo, area} = colours;
    return [
        fill('views', accent, 0.1),
        line('views', accent, 1.25),
        dot('places', accent, halo, 5, 0.9),
        fill('marked', accent, 0.25),
        line('marked', accent, 2.5),
        dot('marked', accent, halo, 8),
        line('outline', accent, 1.5, {opacity: 0.9}),
        line('footprints', halo, 0.8, {opacity: 0.55}),
        fill('area', area, 0.08),
        line('area', halo, 4.5, {id: 'area-halo', opacity: 0.8}),
        {
            id: 'area',
            type: 'line',
            source: 'area',
            layout: ROUND,
            paint: {'line-color': area, 'line-width': 2.25, 'line-dasharray': [3, 2]},
        },
        ...markLayers(colours),
    ];
}

/** Return the layers of the hits and of the tile of the query. */
function markLayers({accent, hit, halo}: MapColours): LayerSpecification[] {
    const hits = {source: MARKS, filter: isMark('hit')};
    const selected = {source: MARKS, filter: isMark('selected'), layout: ROUND};
    return [
        {
            id: 'hits-fill',
            type: 'fill',
            ...hits,
            paint: {'fill-color': hit, 'fill-opacity': ifHovered(0.4, 0.14)},
        },
        {
            id: 'hits-halo',
            type: 'line',
            ...hits,
            layout: ROUND,
            paint: {'line-color': halo, 'line-width': 4, 'line-opacity': 0.7},
        },
        {
            id: 'hits',
            type: 'line',
            ...hits,
            layout: ROUND,
            paint: {'line-color': hit, 'line-width': ifHovered(4, 2)},
        },
        {id: 'selected-halo', type: 'line', ...selected, paint: {'line-color': halo, 'line-width': 5}},
        {id: 'selected', type: 'line', ...selected, paint: {'line-color': accent, 'line-width': 3}},
    ];
}

/** Return a feature as a list, which is empty without a geometry. */
export function featureOf(geometry: Geometry | null, properties: Record<string, unknown> = {}): Feature[] {
    return geometry ? [{type: 'Feature', geometry, properties}] : [];
}

/** Sources that have features. */
const filled = new WeakSet<GeoJSONSource>();

/** Show features in a source. A source that stays empty is left alone, because each change draws the whole map anew. */
export function setData(map: MapLibreMap, id: VectorSource, features: Feature[]): void {
    const source = map.getSource<GeoJSONSource>(id);
    if (!source || (features.length === 0 && !filled.has(source))) return;
    if (features.length > 0) filled.add(source);
    else filled.delete(source);
    source.setData({type: 'FeatureCollection', features});
}

/** Add the sources, which are empty at first, and their layers. */
export function addVectorLayers(map: MapLibreMap, colours: MapColours): void {
    for (const id of VECTOR_SOURCES) {
        // A hit is known by its name, so that it can have a state.
        const identity = id === MARKS ? {promoteId: 'name'} : {};
        map.addSource(id, {type: 'geojson', ...identity, data: {type: 'FeatureCollection', features: []}});
    }
    for (const layer of vectorLayers(colours)) map.addLayer(layer);
}
