/** The layers above the base: rasters, coloured tiles, outlines, hits, the drawn area. They follow the signals. */
import {computed, effect, signal} from '@preact/signals';
import type {ReadonlySignal} from '@preact/signals';
import type {GeoJSONSource, Map as MapLibreMap, RasterTileSource, SourceSpecification} from 'maplibre-gl';
import type {Feature, FeatureCollection, Geometry} from 'geojson';
import * as api from '../api.ts';
import type {Bbox, Card, Hit, Parameters, ViewDetails} from '../api.ts';
import {isAbort} from '../problems.ts';
import {
    answer,
    colour,
    hoveredHit,
    imageryShown,
    layerFilters,
    markedCard,
    opacity,
    openView,
    outlinesShown,
    selectedTile,
    similarity,
    store,
    valueOf,
    viewKey,
    where,
} from '../state.ts';
import {ABOVE_RASTERS} from './base_style.ts';
import type {MapColours} from './base_style.ts';
import {boxCentre, boxPolygon} from './shapes.ts';
import {VECTOR_SOURCES, vectorLayers} from './vector_layers.ts';
import type {VectorSource} from './vector_layers.ts';

/** Dates `YYYY-MM-DD` between which the shown scenes lie. Null is no limit. */
export interface ShownDates {
    since: string | null;
    until: string | null;
}

const NOTHING: FeatureCollection = {type: 'FeatureCollection', features: []};
/** Pixels of a map tile's side, as the service draws them. */
const MAP_TILE = 512;
/** Zoom down to which coloured tiles are drawn anew. Below it, their map tiles are enlarged: they are flat colours. */
const DEEPEST = 20;
/** Whether MapLibre is waiting for map tiles. */
export const mapBusy = signal(false);
/** Whether the outlines of tiles are too many to show at this zoom. */
export const outlinesTruncated = signal(false);

function collection(features: Feature[]): FeatureCollection {
    return {type: 'FeatureCollection', features};
}

function setData(map: MapLibreMap, source: VectorSource, data: FeatureCollection): void {
    map.getSource<GeoJSONSource>(source)?.setData(data);
}

/** Add the GeoJSON sources and their layers, without content. */
export function addVectorLayers(map: MapLibreMap, colours: MapColours): void {
    for (const id of VECTOR_SOURCES) map.addSource(id, {type: 'geojson', data: NOTHING});
    for (const layer of vectorLayers(colours)) map.addLayer(layer);
}

/** Return the boxes that a box covers west and east of the antimeridian: MapLibre bounds must not wrap. */
function sourceBounds(bbox: Bbox | null): [number, number, number, number] {
    if (!bbox || bbox[0] > bbox[2]) return [-180, -85.0511, 180, 85.0511];
    return bbox;
}

function rasterSource(view: ViewDetails, url: string): SourceSpecification {
    return {
        type: 'raster',
        tiles: [url],
        tileSize: MAP_TILE,
        minzoom: view.min_zoom,
        maxzoom: view.max_zoom,
        bounds: sourceBounds(view.bbox),
    };
}

/** Show the map tiles of `url` in the layer `id`, or nothing if `url` is null. */
function syncRaster(map: MapLibreMap, id: string, source: SourceSpecification | null, before: string): void {
    const url = source && 'tiles' in source ? source.tiles?.[0] : undefined;
    const existing = map.getSource<RasterTileSource>(id);
    if (existing && source && url) {
        if (existing.tiles[0] === url) return;
        if (existing.maxzoom === ('maxzoom' in source ? source.maxzoom : undefined)) {
            existing.setTiles([url]);
            return;
        }
    }
    if (existing) {
        map.removeLayer(id);
        map.removeSource(id);
    }
    if (!source) return;
    map.addSource(id, source);
    map.addLayer(
        {id, type: 'raster', source: id, paint: {'raster-fade-duration': 150, 'raster-resampling': 'nearest'}},
        before,
    );
}

const hits = computed<Hit[]>(() => valueOf(answer.value)?.features ?? []);

function featureOf(geometry: Geometry | null, properties: Record<string, unknown>): Feature[] {
    return geometry ? [{type: 'Feature', geometry, properties}] : [];
}

/** Return the boxes or the centres of cards. A view of a few kilometres is only visible on a world map by its centre. */
function cardFeatures(cards: Card[], shape: (bbox: Bbox) => Geometry): Feature[] {
    return cards.flatMap(({kind, id, bbox}) => featureOf(bbox && shape(bbox), {kind, id}));
}

/** The cards that the map shows: all of the store while no view is open. */
const shownCards = computed<Card[]>(() => {
    const known = valueOf(store.value);
    return known && !viewKey.value ? [...known.datasets, ...known.collections] : [];
});

const markedCards = computed<Card[]>(() => {
    const key = markedCard.value;
    return shownCards.value.filter(({kind, id}) => key?.kind === kind && key.id === id);
});

/**
 * Let the layers of `map` follow the signals. Return a function that ends this.
 *
 * Args:
 *     map: One of the two maps; the second one exists while two dates are compared.
 *     dates: Returns the dates `YYYY-MM-DD` that this map shows, from signals.
 */
export function followState(map: MapLibreMap, dates: () => ShownDates): () => void {
    /** The filters of the layers of this map. */
    const filters = computed<Parameters>(() => {
        const {since, until} = dates();
        return {...layerFilters.value, since, until};
    });
    const ends = [
        effect(() => {
            const view = openView.value;
            const {since, until} = dates();
            const shown = view && imageryShown.value;
            syncRaster(map, 'imagery', shown ? rasterSource(view, api.imageryUrl(view, view.v, since, until)) : null, map.getLayer('tiles') ? 'tiles' : ABOVE_RASTERS);
        }),
        effect(() => {
            const view = openView.value;
            const name = colour.value;
            const heat = valueOf(similarity.value)?.similarity ?? null;
            const shown = view && name && name !== 'none' && (name !== 'similarity' || heat);
            const url = shown ? api.tilesUrl(view, view.v, name, name === 'similarity' ? heat : null, filters.value) : null;
            syncRaster(map, 'tiles', url && view ? {...rasterSource(view, url), minzoom: 0, maxzoom: DEEPEST} as SourceSpecification : null, ABOVE_RASTERS);
            if (map.getLayer('tiles')) map.setPaintProperty('tiles', 'raster-opacity', opacity.value);
        }),
        effect(() => setData(map, 'views', collection(cardFeatures(shownCards.value, boxPolygon)))),
        effect(() => setData(map, 'places', collection(cardFeatures(shownCards.value, boxCentre)))),
        effect(() => {
            const cards = markedCards.value;
            setData(map, 'marked', collection([...cardFeatures(cards, boxPolygon), ...cardFeatures(cards, boxCentre)]));
        }),
        effect(() => setData(map, 'outline', collection(featureOf(openView.value?.outline ?? null, {})))),
        effect(() => setData(map, 'hits', collection(hits.value.flatMap((hit) => featureOf(hit.geometry, {name: hit.id, rank: hit.properties.rank}))))),
        effect(() => {
            const hit = hits.value.find(({id}) => id === hoveredHit.value);
            setData(map, 'hovered', collection(hit ? featureOf(hit.geometry, {}) : []));
        }),
        effect(() => setData(map, 'selected', collection(featureOf(selectedTile.value?.geometry ?? null, {})))),
        effect(() => {
            const {bbox, polygon} = where.value;
            setData(map, 'area', collection([...featureOf(polygon, {}), ...featureOf(bbox && boxPolygon(bbox), {})]));
        }),
        followFootprints(map, filters),
    ];
    return () => {
        for (const end of ends) end();
    };
}

/** Least zoom, relative to a view's coloured map tiles, at which outlines are asked for. */
const PAUSE = 200;

/** Ask for the outlines of the tiles in sight after each movement. Return a function that ends this. */
function followFootprints(map: MapLibreMap, filters: ReadonlySignal<Parameters>): () => void {
    const moved = signal(0);
    let controller: AbortController | null = null;
    let timer: number | undefined;
    const ask = (): void => {
        const view = openView.peek();
        controller?.abort();
        if (!view || !outlinesShown.peek()) {
            setData(map, 'footprints', NOTHING);
            outlinesTruncated.value = false;
            return;
        }
        controller = new AbortController();
        const bounds = map.getBounds();
        const wrap = (lon: number): number => ((((lon + 180) % 360) + 360) % 360) - 180;
        const whole = bounds.getEast() - bounds.getWest() >= 360;
        const bbox: Bbox = [
            whole ? -180 : wrap(bounds.getWest()),
            Math.max(-90, bounds.getSouth()),
            whole ? 180 : wrap(bounds.getEast()),
            Math.min(90, bounds.getNorth()),
        ];
        api.getFootprints(view, bbox, filters.peek(), controller.signal).then(
            (answered) => {
                outlinesTruncated.value = answered.truncated === true;
                setData(map, 'footprints', answered.truncated ? NOTHING : answered);
            },
            (error: unknown) => {
                if (!isAbort(error)) setData(map, 'footprints', NOTHING);
            },
        );
    };
    const onMove = (): void => {
        moved.value += 1;
    };
    map.on('moveend', onMove);
    const end = effect(() => {
        void [moved.value, openView.value?.v, viewKey.value, filters.value, outlinesShown.value];
        clearTimeout(timer);
        timer = window.setTimeout(ask, PAUSE);
    });
    return () => {
        map.off('moveend', onMove);
        clearTimeout(timer);
        controller?.abort();
        end();
    };
}
