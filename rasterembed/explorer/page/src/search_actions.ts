/** What a person can ask: search, refine, filter, similarity of all tiles. */
import {batch} from '@preact/signals';
import {afterPaint} from './after_paint.ts';
import * as api from './api.ts';
import {ApiProblem} from './api.ts';
import type {Answer, ClickBody, ExportFormat, QueryBody, SearchBody, Tile, WhereBody} from './api.ts';
import {rememberHits, rememberTiles} from './known_tiles.ts';
import {cancel, load} from './loading.ts';
import {flyTo, uncover} from './map/camera.ts';
import type {DrawnShape} from './map/draw_tool.ts';
import {dateAt} from './map/swipe.ts';
import {isTileName} from './named_tile.ts';
import {problemFrom} from './problems.ts';
import {clickWaits, details, exporting, notice, tilesAtClick, typed, upload} from './search_state.ts';
import {
    IDLE,
    NO_QUERY,
    answer,
    hasQuery,
    hoveredHit,
    k,
    layerFilters,
    nameOfTile,
    query,
    similarity,
    status,
    swipe,
    uploadedImage,
    viewKey,
    where,
} from './state.ts';
import type {QueryState, WhereState} from './state.ts';

/**
 * Time from the last change of a filter to its search, in milliseconds: a slider changes many times a second. It is also
 * the time after which a click without an answer hides the answer before.
 */
const PAUSE = 200;
/** Largest size of an image in bytes. The service refuses more. */
const LARGEST_IMAGE = 20 * 1024 ** 2;

export type ExampleRole = 'like' | 'unlike';

let timer: number | undefined;
let click = new AbortController();
let sending = new AbortController();
/** A typed tile id that the service refused. Another filter may make it right, such as the choice of a scene. */
let refused: string | null = null;

export function queryBody(state: QueryState): QueryBody {
    const body: QueryBody = {};
    if (state.tile !== null) body.tile = state.tile;
    if (state.lonlat !== null) body.lonlat = state.lonlat;
    if (state.image !== null) body.image = state.image;
    if (state.like.length > 0) body.like = state.like;
    if (state.unlike.length > 0) body.unlike = state.unlike;
    return body;
}

function whereBody(state: WhereState): WhereBody {
    const body: WhereBody = {};
    if (state.bbox) body.bbox = state.bbox;
    if (state.polygon) body.polygon = state.polygon;
    if (state.minValid !== null) body.min_valid_fraction = state.minValid;
    if (state.since) body.since = state.since;
    if (state.until) body.until = state.until;
    if (state.maxCloud !== null) body.max_cloud_cover = state.maxCloud;
    if (state.pick) body.pick = state.pick;
    return body;
}

/** Return the request of the current state, for search and export. */
export function searchBody(): SearchBody {
    return {query: queryBody(query.value), where: whereBody(where.value), k: k.value};
}

/** Ask the current query, or clear the answer if the state holds none. An older answer is never shown meanwhile. */
export async function searchAgain(): Promise<void> {
    clearTimeout(timer);
    const key = viewKey.value;
    if (!key || !hasQuery.value) {
        cancel(answer);
        answer.value = IDLE;
        return;
    }
    const body = searchBody();
    hoveredHit.value = null;
    const value = await load(answer, (signal) => api.search(key, body, signal), false);
    if (value) {
        tellFound(value);
    } else if (answer.value.state === 'failed') status.value = answer.value.problem.message;
}

/** Keep the tiles of an answer, and say how many it has. */
function tellFound({features}: Answer): void {
    rememberHits(features);
    status.value = features.length === 1 ? '1 tile found.' : `${features.length} tiles found.`;
}

/** Search when no further change follows for a moment. The answer so far is hidden at once. */
function searchSoon(): void {
    cancel(answer);
    answer.value = hasQuery.value ? {state: 'loading'} : IDLE;
    clearTimeout(timer);
    timer = window.setTimeout(() => void searchRefused(), PAUSE);
}

/** Search by the typed tile id that the service refused before, or else by the query. */
async function searchRefused(): Promise<void> {
    if (refused === null || !(await searchTyped(refused))) void searchAgain();
}

/** Change the query, and ask it. A click or an image that the service has not answered yet is older, and is dropped. */
function ask(change: QueryState): void {
    dropStarts();
    forgetTyped();
    query.value = change;
    void searchAgain();
}

/** Empty the field for a tile id or a place, and forget what was said about its text. */
function forgetTyped(): void {
    refused = null;
    typed.value = '';
    notice.value = null;
}

/** End what would begin a search when the service answers: a click on the map, or an image on its way. */
function dropStarts(): void {
    click.abort();
    sending.abort();
    upload.value = {state: 'idle'};
}

/** Ask for the neighbours of one tile; examples that refined the query before are dropped. */
export function searchTile(name: string): void {
    ask({...NO_QUERY, tile: name});
}

/** Ask for the neighbours of a tile whose outline is known. */
export function searchFrom(tile: Tile): void {
    rememberTiles([tile]);
    searchTile(nameOfTile(tile));
}

/** Like or unlike a tile; take the mark back if the tile has it. A tile is never liked and unliked at once. */
export function toggleExample(name: string, role: ExampleRole): void {
    const without = (names: string[]): string[] => names.filter((one) => one !== name);
    const state = query.value;
    const marked = state[role].includes(name);
    const change = {...state, like: without(state.like), unlike: without(state.unlike)};
    if (!marked) change[role] = [...change[role], name];
    ask(change);
}

/** Remove the tile, the place or the image of the query. Liked tiles stay. */
export function removeStart(): void {
    batch(() => {
        tilesAtClick.value = [];
        ask({...NO_QUERY, like: query.value.like, unlike: query.value.unlike});
    });
}

/**
 * Take the tile under a point of the map and ask for its neighbours. A newer click ends an older one. The person reads
 * `nothing` if no tile lies at the point. Return whether a tile lies there.
 *
 * One request does both. The answer before stays in the strip for a moment, because most clicks are answered by then.
 */
export async function clickMap(lon: number, lat: number, nothing = 'No tile lies at this place.'): Promise<boolean> {
    const key = viewKey.value;
    if (!key) return false;
    click.abort();
    click = new AbortController();
    const {signal} = click;
    const date = swipe.value ? dateAt(lon, lat) : null;
    const asked = {where: where.value, k: k.value};
    const filters = date === null ? layerFilters.value : {...layerFilters.value, since: date, until: date};
    const body: ClickBody = {lonlat: [lon, lat], where: whereBody(asked.where), k: asked.k};
    if (date !== null) body.date = date;
    const waits = sayWaiting();
    const found = await api
        .clickPlace(key, body, signal)
        .catch(async (error: unknown) => {
            if (signal.aborted || problemFrom(error).isAway) throw error;
            // A tile may have no answer, for example because its vector is zero. The search for it alone then says why.
            return {tiles: await api.getTilesAt(key, lon, lat, filters, signal), answer: null};
        })
        .catch(problemFrom);
    clearTimeout(waits);
    // The empty cards wait for a newer click.
    if (click.signal !== signal) return false;
    return batch(() => {
        clickWaits.value = false;
        if (signal.aborted || viewKey.value !== key) return false;
        if (found instanceof ApiProblem) {
            say(found.message);
            return false;
        }
        const tile = found.tiles[0];
        if (!tile) {
            const filtered = Object.values(filters).some((value) => value !== null);
            say(filtered ? 'No tile at this place passes the filters.' : nothing);
            return false;
        }
        tilesAtClick.value = found.tiles;
        const isCurrent = where.value === asked.where && k.value === asked.k;
        rememberTiles([tile]);
        if (found.answer && isCurrent) showAnswer(nameOfTile(tile), found.answer);
        else searchTile(nameOfTile(tile));
        afterPaint(() => uncover(lon, lat));
        return true;
    });
}

/** Hide the answer before if nothing arrives for a moment. Return the timer. */
function sayWaiting(): number {
    return window.setTimeout(() => {
        clickWaits.value = true;
    }, PAUSE);
}

/** Show the neighbours of a tile that have arrived before the tile became the query. */
function showAnswer(name: string, value: Answer): void {
    dropStarts();
    clearTimeout(timer);
    cancel(answer);
    forgetTyped();
    hoveredHit.value = null;
    query.value = {...NO_QUERY, tile: name};
    answer.value = {state: 'ready', value};
    tellFound(value);
}

/** Search by a tile id or by a place, as a person typed it: `r000012_c000034`, `scene/r000012_c000034`, `60.19, 24.92`. */
export function searchText(text: string): void {
    const place = /^\s*(-?\d+(?:\.\d+)?)\s*[,;\s]\s*(-?\d+(?:\.\d+)?)\s*$/.exec(text);
    if (place) {
        const [lat, lon] = [Number(place[1]), Number(place[2])];
        if (Math.abs(lat) > 90 || Math.abs(lon) > 360) {
            say('Give the latitude (-90 to 90) first, then the longitude, in degrees.');
            return;
        }
        void clickMap(lon, lat, `No tile lies at latitude ${lat}, longitude ${lon}.`).then((found) => {
            // The strip of the answer leaves another part of the map visible.
            if (found) afterPaint(() => flyTo(lon, lat));
        });
        return;
    }
    refused = null;
    const name = text.trim();
    if (isTileName(name)) void searchTyped(name);
    else say(`“${name}” is no tile id, such as r000012_c000034, and no place, such as 60.19, 24.92 (latitude, longitude).`);
}

/**
 * Search by the id of a tile. If the service refuses it, the query before and its answer stay, and the reason is said.
 * Return false then, and true if the answer is shown or a newer search has begun.
 */
async function searchTyped(id: string): Promise<boolean> {
    const key = viewKey.value;
    if (!key) return true;
    // A dataset has no other dataset, so the id of the tile alone is enough.
    const name = id.includes('/') || key.kind === 'collections' ? id : `${key.id}/${id}`;
    click.abort();
    click = new AbortController();
    const {signal} = click;
    const asked = {where: where.value, k: k.value};
    const waits = sayWaiting();
    const body = {query: {tile: name}, where: whereBody(asked.where), k: asked.k};
    const found = await api.search(key, body, signal).catch(problemFrom);
    clearTimeout(waits);
    if (click.signal !== signal) return true;
    return batch(() => {
        clickWaits.value = false;
        if (signal.aborted || viewKey.value !== key) return true;
        if (found instanceof ApiProblem) {
            refused = id;
            say(found.message);
            return false;
        }
        tilesAtClick.value = [];
        if (where.value === asked.where && k.value === asked.k) showAnswer(name, found);
        else searchTile(name);
        return true;
    });
}

/** Send an image to the service, and ask for the tiles that are like it. A newer image ends an older one. */
export async function searchImage(file: File): Promise<void> {
    const key = viewKey.value;
    if (!key) return;
    sending.abort();
    sending = new AbortController();
    const {signal} = sending;
    if (file.size > LARGEST_IMAGE) {
        upload.value = {state: 'failed', text: `${file.name} has more than 20 MiB. Cut out the part to search for.`};
        return;
    }
    upload.value = {state: 'running', name: file.name};
    try {
        const image = await api.uploadImage(key, file, signal);
        if (signal.aborted || viewKey.value !== key) return;
        batch(() => {
            showUploaded({...image, preview: URL.createObjectURL(file), name: file.name});
            tilesAtClick.value = [];
            ask({...NO_QUERY, image: image.image});
        });
    } catch (error) {
        if (!signal.aborted) upload.value = {state: 'failed', text: problemFrom(error).message};
    }
}

/** Take an uploaded image into the state, or none. The browser then frees the preview of the image before. */
export function showUploaded(image: typeof uploadedImage.value): void {
    const old = uploadedImage.value;
    uploadedImage.value = image;
    if (old) URL.revokeObjectURL(old.preview);
}

/** Return the answer as a file of a format, with the name that the service proposes for it; null if no view is open. */
export async function exportAnswer(
    format: ExportFormat,
    signal: AbortSignal,
): Promise<{file: Blob; name: string} | null> {
    const key = viewKey.value;
    return key && api.exportAnswer(key, searchBody(), format, signal);
}

/** Show a message beside the query, and read it to people who do not see it. */
export function say(text: string): void {
    notice.value = text;
    status.value = text;
}

/** Hide everything that belongs to the query so far: the answer, what was clicked, and what was said about it. */
export function clearAnswer(): void {
    dropStarts();
    clearTimeout(timer);
    cancel(answer);
    cancel(similarity);
    batch(() => {
        answer.value = IDLE;
        similarity.value = IDLE;
        hoveredHit.value = null;
        details.value = null;
        forgetTyped();
        tilesAtClick.value = [];
        exporting.value = false;
    });
}

export function clearQuery(): void {
    batch(() => {
        query.value = NO_QUERY;
        clearAnswer();
    });
}

/** Change some filters. Without a query, they change the map only. */
export function setWhere(change: Partial<WhereState>): void {
    where.value = {...where.value, ...change};
    searchSoon();
}

/** Limit the map and the search to one date, or to none. */
export function showDate(date: string | null): void {
    setWhere({since: date, until: date});
}

/** Search inside one area; null searches everywhere. A new area takes the place of the old one. */
export function setArea(area: DrawnShape | null): void {
    setWhere({bbox: area?.kind === 'box' ? area.box : null, polygon: area?.kind === 'polygon' ? area.polygon : null});
}

export function setK(value: number): void {
    k.value = value;
    searchSoon();
}
