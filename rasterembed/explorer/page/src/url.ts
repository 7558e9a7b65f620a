/** The state as the parameters of the page's URL, and back. What comes from a URL is checked like any other input. */
import type {Polygon} from 'geojson';
import type {Bbox, Pick, ViewKey, ViewKind} from './api.ts';
import {MOST_CORNERS} from './map/area.ts';
import {DEFAULT_CLASSES, DEFAULT_K, DEFAULT_OPACITY} from './state.ts';
import type {Position, QueryState, SwipeState, WhereState} from './state.ts';
import {FEWEST_CLASSES, MOST_CLASSES} from './tile_colours.ts';

/** The part of the state that a URL holds. */
export interface SharedState {
    view: ViewKey | null;
    position: Position | null;
    /** Null: the view's first colour. "none": no coloured tiles. */
    colour: string | null;
    opacity: number;
    /** Number of classes of similar tiles. */
    classes: number;
    imagery: boolean;
    outlines: boolean;
    query: QueryState;
    where: WhereState;
    k: number;
    swipe: SwipeState | null;
}

/** Most tiles of an answer. The service refuses more. */
const LARGEST_K = 500;
/** Most tiles of `like` or `unlike` that are taken from a URL. The service refuses more. */
const MOST_EXAMPLES = 100;
const LONGEST_NAME = 512;
const KINDS: readonly ViewKind[] = ['datasets', 'collections'];
const PICKS: readonly Pick[] = ['all', 'latest', 'clearest'];

/** Return the finite numbers of a comma-separated text, or null if it holds anything else or another number of them. */
function numbers(text: string | null, count: number): number[] | null {
    if (text === null || text.length > 40 * count) return null;
    const parts = text.split(',');
    if (parts.length !== count) return null;
    const values = parts.map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
    return values.every(Number.isFinite) ? values : null;
}

function numberBetween(text: string | null, low: number, high: number): number | null {
    const value = numbers(text, 1)?.[0];
    return value !== undefined && value >= low && value <= high ? value : null;
}

function date(text: string | null): string | null {
    if (text === null || !/^\d{4}-\d{2}-\d{2}$/.test(text)) return null;
    const parsed = new Date(`${text}T00:00:00Z`);
    return !Number.isNaN(parsed.valueOf()) && parsed.toISOString().startsWith(text) ? text : null;
}

const isLongitude = (value: number): boolean => value >= -180 && value <= 180;
const isLatitude = (value: number): boolean => value >= -90 && value <= 90;

function lonLat(text: string | null): [number, number] | null {
    const values = numbers(text, 2);
    if (!values) return null;
    const [lon, lat] = values as [number, number];
    return isLongitude(lon) && isLatitude(lat) ? [lon, lat] : null;
}

function bbox(text: string | null): Bbox | null {
    const values = numbers(text, 4);
    if (!values) return null;
    const [west, south, east, north] = values as Bbox;
    const onEarth = isLongitude(west) && isLongitude(east) && isLatitude(south) && isLatitude(north);
    return onEarth && south <= north ? [west, south, east, north] : null;
}

/** Read a corner of a polygon. Beyond longitude 180 or -180, the polygon goes on over the antimeridian. */
function corner(text: string): [number, number] | null {
    const values = numbers(text, 2);
    if (!values) return null;
    const [lon, lat] = values as [number, number];
    return Math.abs(lon) <= 360 && isLatitude(lat) ? [lon, lat] : null;
}

/** Read the corners "lon,lat;lon,lat;…" of a polygon without holes. The URL leaves out the last corner, the first again. */
function polygon(text: string | null): Polygon | null {
    if (text === null) return null;
    const corners = text.split(';', MOST_CORNERS + 1).map((part) => corner(part));
    if (corners.length < 3 || corners.length > MOST_CORNERS) return null;
    const ring: [number, number][] = [];
    for (const place of corners) {
        if (!place) return null;
        ring.push(place);
    }
    return {type: 'Polygon', coordinates: [[...ring, ring[0] as [number, number]]]};
}

function positionOf(text: string | null): Position | null {
    const values = numbers(text, 3);
    if (!values) return null;
    const [lon, lat, zoom] = values as [number, number, number];
    return isLongitude(lon) && isLatitude(lat) && zoom >= 0 && zoom <= 24 ? {lon, lat, zoom} : null;
}

export function viewKeyOf(text: string | null): ViewKey | null {
    const slash = text?.indexOf('/') ?? -1;
    if (text === null || slash < 0) return null;
    const kind = KINDS.find((name) => name === text.slice(0, slash));
    const id = text.slice(slash + 1);
    return kind && id !== '' && id.length <= LONGEST_NAME ? {kind, id} : null;
}

function names(values: string[]): string[] {
    return [...new Set(values.filter((name) => name !== '' && name.length <= LONGEST_NAME))].slice(0, MOST_EXAMPLES);
}

function swipeOf(text: string | null): SwipeState | null {
    const [left, right, ...rest] = (text ?? '').split('..').map((part) => date(part));
    return left && right && rest.length === 0 ? {left, right} : null;
}

/** Return the state that a URL's query text holds. Values that cannot be used are left out. */
export function readUrl(text: string): SharedState {
    const parameters = new URLSearchParams(text);
    const name = (key: string): string | null => names(parameters.getAll(key))[0] ?? null;
    const image = parameters.get('image');
    return {
        view: viewKeyOf(parameters.get('view')),
        position: positionOf(parameters.get('at')),
        colour: name('colour'),
        opacity: numberBetween(parameters.get('opacity'), 0, 1) ?? DEFAULT_OPACITY,
        classes: Math.round(numberBetween(parameters.get('classes'), FEWEST_CLASSES, MOST_CLASSES) ?? DEFAULT_CLASSES),
        imagery: parameters.get('imagery') !== '0',
        outlines: parameters.get('outlines') !== '0',
        query: {
            tile: name('tile'),
            lonlat: lonLat(parameters.get('lonlat')),
            image: image !== null && /^[0-9a-f]{64}$/.test(image) ? image : null,
            like: names(parameters.getAll('like')),
            unlike: names(parameters.getAll('unlike')),
        },
        where: {
            bbox: bbox(parameters.get('bbox')),
            polygon: polygon(parameters.get('polygon')),
            minValid: numberBetween(parameters.get('valid'), 0, 1),
            since: date(parameters.get('since')),
            until: date(parameters.get('until')),
            maxCloud: numberBetween(parameters.get('cloud'), 0, 100),
            pick: PICKS.find((pick) => pick === parameters.get('pick')) ?? null,
        },
        k: Math.round(numberBetween(parameters.get('k'), 1, LARGEST_K) ?? DEFAULT_K),
        swipe: swipeOf(parameters.get('swipe')),
    };
}

/** Return a number with at most `digits` decimals, without zeros at the end. */
function short(value: number, digits: number): string {
    return String(Number(value.toFixed(digits)));
}

/** Return the query text of a URL, with "?" in front; "" if the state is the page's first. Defaults are left out. */
export function writeUrl(state: SharedState): string {
    const parameters = new URLSearchParams();
    const set = (name: string, value: string | null): void => {
        if (value !== null) parameters.set(name, value);
    };
    const {view, position, query, where, swipe} = state;
    set('view', view && `${view.kind}/${view.id}`);
    set('at', position && [short(position.lon, 6), short(position.lat, 6), short(position.zoom, 2)].join(','));
    set('colour', state.colour);
    set('opacity', state.opacity === DEFAULT_OPACITY ? null : short(state.opacity, 2));
    set('classes', state.classes === DEFAULT_CLASSES ? null : String(state.classes));
    set('imagery', state.imagery ? null : '0');
    set('outlines', state.outlines ? null : '0');
    set('tile', query.tile);
    set('lonlat', query.lonlat && query.lonlat.map((value) => short(value, 7)).join(','));
    set('image', query.image);
    for (const tile of query.like) parameters.append('like', tile);
    for (const tile of query.unlike) parameters.append('unlike', tile);
    set('bbox', where.bbox && where.bbox.map((value) => short(value, 6)).join(','));
    const ring = where.polygon?.coordinates[0]?.slice(0, -1);
    set('polygon', ring ? ring.map(([lon = 0, lat = 0]) => `${short(lon, 6)},${short(lat, 6)}`).join(';') : null);
    set('valid', where.minValid === null ? null : short(where.minValid, 3));
    set('since', where.since);
    set('until', where.until);
    set('cloud', where.maxCloud === null ? null : short(where.maxCloud, 1));
    set('pick', where.pick);
    set('k', state.k === DEFAULT_K ? null : String(state.k));
    set('swipe', swipe && `${swipe.left}..${swipe.right}`);
    // Commas, slashes, colons and semicolons are allowed in a URL's query, and a person can read them.
    const text = parameters.toString().replaceAll('%2C', ',').replaceAll('%2F', '/').replaceAll('%3B', ';');
    return text ? `?${text}` : '';
}
