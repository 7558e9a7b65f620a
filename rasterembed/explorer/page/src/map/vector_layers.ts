/** The layers of outlines, hits and places: their sources and how they look. */
import type {Feature} from 'geojson';
import type {GeoJSONSource, LayerSpecification, Map as MapLibreMap} from 'maplibre-gl';
import type {MapColours} from './base_style.ts';

/** Sources of GeoJSON, all empty at first. */
const VECTOR_SOURCES = [
    'places',
    'views',
    'marked',
    'outline',
    'footprints',
    'area',
    'hits',
    'selected',
    'hovered',
] as const;

type VectorSource = (typeof VECTOR_SOURCES)[number];

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
    const {accent, hit, halo, area} = colours;
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
        fill('hits', hit, 0.14),
        line('hits', halo, 4, {id: 'hits-halo', opacity: 0.7}),
        line('hits', hit, 2),
        line('selected', halo, 5, {id: 'selected-halo'}),
        line('selected', accent, 3),
        fill('hovered', hit, 0.3),
        line('hovered', hit, 4),
    ];
}

/** Sources that have features. */
const filled = new WeakSet<GeoJSONSource>();

/**
 * Show features in a source. A source that stays empty is left alone, because each change draws the whole map anew.
 *
 * The last two sources are those of `answer_layers.ts`.
 */
export function setData(map: MapLibreMap, id: VectorSource | 'examples' | 'ranks', features: Feature[]): void {
    const source = map.getSource<GeoJSONSource>(id);
    if (!source || (features.length === 0 && !filled.has(source))) return;
    if (features.length > 0) filled.add(source);
    else filled.delete(source);
    source.setData({type: 'FeatureCollection', features});
}

/** Add the sources, which are empty at first, and their layers. */
export function addVectorLayers(map: MapLibreMap, colours: MapColours): void {
    for (const id of VECTOR_SOURCES) map.addSource(id, {type: 'geojson', data: {type: 'FeatureCollection', features: []}});
    for (const layer of vectorLayers(colours)) map.addLayer(layer);
}
