/** Let the layers above the base follow the signals: rasters, coloured tiles, outlines, the searched area. */
import {computed, effect, signal} from '@preact/signals';
import type {Feature, Geometry} from 'geojson';
import type {Map as MapLibreMap} from 'maplibre-gl';
import * as api from '../api.ts';
import type {Bbox, Card, Parameters} from '../api.ts';
import {detailOf} from '../problems.ts';
import {
    HEAT,
    NO_COLOUR,
    classes,
    colour,
    hasQuery,
    imageryProblem,
    imageryShown,
    layerFilters,
    legend,
    markedCard,
    opacity,
    openView,
    similarity,
    store,
    valueOf,
    viewKey,
    where,
} from '../state.ts';
import {colourParameters} from '../tile_colours.ts';
import {followFootprints} from './footprints.ts';
import {basemapSource, imagerySource, showRaster, tilesSource} from './raster_layers.ts';
import {boxArea, boxPolygon, centreOfSmall} from './shapes.ts';
import {featureOf, setData} from './vector_layers.ts';

/** Dates `YYYY-MM-DD` between which the shown scenes lie. Null is no limit. */
export interface ShownDates {
    since: string | null;
    until: string | null;
}

/** Whether the map waits for map tiles. */
export const mapBusy = signal(false);

const areaOf = ({bbox}: Card): number => (bbox ? boxArea(bbox) : 0);

/**
 * The cards that the map shows: all of the store while no view is open. The largest comes first, and lies under the
 * others, so that the pointer finds each of them.
 */
const shownCards = computed<Card[]>(() => {
    const known = valueOf(store.value);
    return known && !viewKey.value ? [...known.datasets, ...known.collections].sort((a, b) => areaOf(b) - areaOf(a)) : [];
});

const markedCards = computed<Card[]>(() => {
    const key = markedCard.value;
    return shownCards.value.filter(({kind, id}) => key?.kind === kind && key.id === id);
});

/** Return the boxes or the centres of cards. A view of a few kilometres is only visible on a world map by its centre. */
function cardFeatures(cards: Card[], shape: (bbox: Bbox) => Geometry | null): Feature[] {
    return cards.flatMap(({kind, id, bbox}) => featureOf(bbox && shape(bbox), {kind, id}));
}

/** Return the effects that show map tiles. */
function followRasters(map: MapLibreMap, dates: () => ShownDates, filters: () => Parameters): (() => void)[] {
    return [
        effect(() => {
            const known = valueOf(store.value);
            showRaster(map, 'basemap', known?.basemap ? basemapSource(known.basemap, known.basemap_attribution) : null);
        }),
        effect(() => {
            const view = openView.value;
            const {since, until} = dates();
            const isShown = view && imageryShown.value;
            imageryProblem.value = null;
            showRaster(map, 'imagery', isShown ? imagerySource(view, api.imageryUrl(view, view.v, since, until)) : null);
        }),
        followColour(map, filters),
    ];
}

/** Return the effect that shows the coloured tiles. */
function followColour(map: MapLibreMap, filters: () => Parameters): () => void {
    /** Name of the colour that the map shows now. */
    let painted: string | null = null;
    return effect(() => {
        const view = openView.value;
        const name = colour.value;
        const heat = name === HEAT ? (valueOf(similarity.value)?.similarity ?? null) : null;
        const isWanted = view !== null && name !== null && name !== NO_COLOUR;
        // The legend comes when the colours are computed, which can take seconds. Map tiles are asked for after it.
        const isReady = valueOf(legend.value)?.colour === name && (name !== HEAT || heat !== null);
        if (isWanted && isReady) {
            const choice = colourParameters(name, heat, classes.value);
            showRaster(map, 'tiles', tilesSource(view, api.tilesUrl(view, view.v, choice, filters())));
            painted = name;
        } else if (!isWanted || !isComing(name, painted)) {
            showRaster(map, 'tiles', null);
            painted = null;
        }
        if (map.getLayer('tiles')) map.setPaintProperty('tiles', 'raster-opacity', opacity.value);
    });
}

/**
 * Return whether the map keeps the colour `painted` because another colour `name` is on its way: a map without any colour
 * in between would flicker. The similarity to an older query is never kept.
 */
function isComing(name: string, painted: string | null): boolean {
    if (name !== HEAT) return legend.value.state !== 'failed';
    return painted !== HEAT && hasQuery.value && similarity.value.state !== 'failed' && legend.value.state !== 'failed';
}

/** Say why the rasters cannot be drawn, for example because a raster is gone. */
function followProblems(map: MapLibreMap): () => void {
    const errors = map.on('error', (event) => {
        const {sourceId, error} = event as unknown as {sourceId?: unknown; error?: {status?: unknown; body?: unknown}};
        if (sourceId !== 'imagery' || error?.status !== 404 || !(error.body instanceof Blob)) return;
        void detailOf(error.body).then((detail) => {
            imageryProblem.value = detail;
        });
    });
    return () => errors.unsubscribe();
}

/** Return the effects that show outlines. */
function followVectors(map: MapLibreMap): (() => void)[] {
    return [
        effect(() => setData(map, 'views', cardFeatures(shownCards.value, boxPolygon))),
        effect(() => setData(map, 'places', cardFeatures(shownCards.value, centreOfSmall))),
        effect(() => {
            const cards = markedCards.value;
            setData(map, 'marked', [...cardFeatures(cards, boxPolygon), ...cardFeatures(cards, centreOfSmall)]);
        }),
        effect(() => setData(map, 'outline', featureOf(openView.value?.outline ?? null))),
        effect(() => {
            const {bbox, polygon} = where.value;
            setData(map, 'area', [...featureOf(polygon), ...featureOf(bbox && boxPolygon(bbox))]);
        }),
    ];
}

/**
 * Let the layers of `map` follow the signals. Return a function that ends this.
 *
 * Args:
 *     map: One of the two maps; the second one exists while two dates are compared.
 *     dates: Returns the dates that this map shows, from signals.
 */
export function followState(map: MapLibreMap, dates: () => ShownDates): () => void {
    const filters = computed<Parameters>(() => {
        const {since, until} = dates();
        return {...layerFilters.value, since, until};
    });
    const ends = [
        ...followRasters(map, dates, () => filters.value),
        ...followVectors(map),
        followProblems(map),
        followFootprints(map, filters),
    ];
    return () => {
        for (const end of ends) end();
    };
}
