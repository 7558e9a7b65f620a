/** The state of the page. Components read these signals; only actions (`actions.ts`, `search_actions.ts`) write them. */
import {computed, signal} from '@preact/signals';
import type {Polygon} from 'geojson';
import type {
    Answer,
    ApiProblem,
    Bbox,
    Legend,
    Pick,
    Similarity,
    StoreAnswer,
    Tile,
    UploadedImage,
    ViewDetails,
    ViewKey,
} from './api.ts';
import {rangeOf} from './similarity_range.ts';
import {storedTheme} from './stored_theme.ts';
import type {Theme} from './stored_theme.ts';

/** Something that is loaded from the service. `last` is the value before, which stays visible while loading. */
export type Loadable<T> =
    | {state: 'idle'}
    | {state: 'loading'; last?: T}
    | {state: 'failed'; problem: ApiProblem; last?: T}
    | {state: 'ready'; value: T};

/** Return the newest known value of a Loadable, or null. */
export function valueOf<T>(loadable: Loadable<T>): T | null {
    if (loadable.state === 'ready') return loadable.value;
    return loadable.state === 'idle' ? null : (loadable.last ?? null);
}

export const IDLE = {state: 'idle'} as const;

/** Centre of the map in degrees, and MapLibre's zoom. */
export interface Position {
    lon: number;
    lat: number;
    zoom: number;
}

/** What the person asks for. Names of tiles are `dataset_id/tile_id`. */
export interface QueryState {
    tile: string | null;
    lonlat: [number, number] | null;
    /** SHA-256 of an uploaded image, as hexadecimal digits. */
    image: string | null;
    like: string[];
    unlike: string[];
}

/** Which tiles may answer. Dates are `YYYY-MM-DD`. */
export interface WhereState {
    bbox: Bbox | null;
    polygon: Polygon | null;
    minValid: number | null;
    since: string | null;
    until: string | null;
    maxCloud: number | null;
    pick: Pick | null;
}

/** The two dates beside each other. */
export interface SwipeState {
    left: string;
    right: string;
}

export const NO_QUERY: QueryState = {tile: null, lonlat: null, image: null, like: [], unlike: []};
export const NO_WHERE: WhereState = {
    bbox: null,
    polygon: null,
    minValid: null,
    since: null,
    until: null,
    maxCloud: null,
    pick: null,
};
export const DEFAULT_K = 24;
/** Name of the colour that shows no coloured tiles. */
export const NO_COLOUR = 'none';
/** Name of the colour that shows the similarity of all tiles to the query. */
export const HEAT = 'similarity';
export const DEFAULT_OPACITY = 0.7;
export const DEFAULT_CLASSES = 8;

export const store = signal<Loadable<StoreAnswer>>({state: 'loading'});
export const viewKey = signal<ViewKey | null>(null);
export const view = signal<Loadable<ViewDetails>>(IDLE);

/** Name of the colour of the tiles. It is null until the view is loaded, which then chooses its first colour. */
export const colour = signal<string | null>(null);
export const opacity = signal(DEFAULT_OPACITY);
/** Number of classes of similar tiles, for the colour `cluster`. */
export const classes = signal(DEFAULT_CLASSES);
export const imageryShown = signal(true);
export const outlinesShown = signal(true);
export const legend = signal<Loadable<Legend>>(IDLE);
/** Where the map is; null until the first view was fitted. */
export const position = signal<Position | null>(null);
/** Where the pointer is on the map, [lon, lat] in degrees. */
export const pointer = signal<[number, number] | null>(null);

export const query = signal<QueryState>(NO_QUERY);
export const where = signal<WhereState>(NO_WHERE);
export const k = signal(DEFAULT_K);
export const answer = signal<Loadable<Answer>>(IDLE);
/** The range of the similarities of the answer. Null without an answer. */
export const similarityRange = computed(() => rangeOf(valueOf(answer.value)?.features ?? []));
/** Tiles that were seen, by `dataset_id/tile_id`. See `known_tiles.ts`. */
export const knownTiles = signal<ReadonlyMap<string, Tile>>(new Map());
/** The tile of the query, once it is known. */
export const selectedTile = computed(() => knownTiles.value.get(query.value.tile ?? '') ?? null);
/** `dataset_id/tile_id` of the hit under the pointer, on the map or in the strip. */
export const hoveredHit = signal<string | null>(null);
export const uploadedImage = signal<(UploadedImage & {preview: string; name: string}) | null>(null);
/** The similarity of all tiles to the query, which the colour `similarity` shows. */
export const similarity = signal<Loadable<Similarity>>(IDLE);
export const swipe = signal<SwipeState | null>(null);
/** Form that the person is drawing on the map. */
export const drawing = signal<'box' | 'polygon' | null>(null);

export const theme = signal<Theme>(storedTheme());
/** Text for the live region: what has just happened, for people who do not see it. */
export const status = signal('');
/** Picture of the QA report that the lightbox shows: its place in `view.pictures`. */
export const lightbox = signal<number | null>(null);

export const hasQuery = computed(() => {
    const {tile, lonlat, image, like} = query.value;
    return tile !== null || lonlat !== null || image !== null || like.length > 0;
});

/** The view if it is loaded. */
export const openView = computed(() => valueOf(view.value));

/** The filters as parameters of the layers' URLs. */
export const layerFilters = computed(() => {
    const {minValid, since, until, maxCloud, pick} = where.value;
    return {min_valid_fraction: minValid, since, until, max_cloud_cover: maxCloud, pick};
});

/** Why the page cannot learn anything at the moment, because the service or its store is away. Null: it can. */
export const outage = signal<string | null>(null);
/**
 * Why the page cannot learn anything, if nothing else on the page says it. The side bar and the strip say why they could
 * not load something, and that is the same reason.
 */
export const untoldOutage = computed(() => {
    const shown = [viewKey.value ? view.value : store.value, answer.value];
    return shown.some((one) => one.state === 'failed' && one.problem.isAway) ? null : outage.value;
});
/** Why the service cannot draw the rasters of the open view. Null if it can. */
export const imageryProblem = signal<string | null>(null);
/** How much of a narrow page the side bar covers. Wide pages show all of it beside the map. */
export const sheet = signal<'peek' | 'half' | 'full'>('half');
/** Card whose place on the map is marked, because the pointer or the focus is on it. */
export const markedCard = signal<ViewKey | null>(null);

/** Name of a hit or a tile: `dataset_id/tile_id`. */
export function nameOfTile({dataset_id, tile_id}: {dataset_id: string; tile_id: string}): string {
    return `${dataset_id}/${tile_id}`;
}
