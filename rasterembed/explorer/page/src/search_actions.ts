/** What a person can ask: search, refine, filter, similarity of all tiles. */
import {batch} from '@preact/signals';
import * as api from './api.ts';
import type {QueryBody, SearchBody, Tile, WhereBody} from './api.ts';
import {cancel, load} from './loading.ts';
import {
    IDLE,
    NO_QUERY,
    answer,
    hasQuery,
    hoveredHit,
    k,
    query,
    selectedTile,
    similarity,
    status,
    uploadedImage,
    viewKey,
    where,
} from './state.ts';
import type {QueryState, WhereState} from './state.ts';

export function queryBody(state: QueryState): QueryBody {
    const body: QueryBody = {};
    if (state.tile !== null) body.tile = state.tile;
    if (state.lonlat !== null) body.lonlat = state.lonlat;
    if (state.image !== null) body.image = state.image;
    if (state.like.length > 0) body.like = state.like;
    if (state.unlike.length > 0) body.unlike = state.unlike;
    return body;
}

export function whereBody(state: WhereState): WhereBody {
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

/** Ask the current query, or clear the answer if the state holds none. */
export async function searchAgain(): Promise<void> {
    const key = viewKey.value;
    if (!key || !hasQuery.value) {
        cancel(answer);
        answer.value = IDLE;
        return;
    }
    const body = searchBody();
    const value = await load(answer, (signal) => api.search(key, body, signal));
    if (value) status.value = `${value.features.length} tiles found.`;
    else if (answer.value.state === 'failed') status.value = answer.value.problem.message;
}

/** Ask for the neighbours of one tile; examples that refined the query before are dropped. */
export function searchTile(name: string): void {
    query.value = {...NO_QUERY, tile: name};
    void searchAgain();
}

/** Take the tile under a point of the map and ask for its neighbours. */
export async function clickMap(lon: number, lat: number): Promise<void> {
    const key = viewKey.value;
    if (!key) return;
    let tiles: Tile[];
    try {
        tiles = await api.getTilesAt(key, lon, lat);
    } catch (error) {
        status.value = error instanceof Error ? error.message : String(error);
        return;
    }
    const tile = tiles[0];
    if (!tile) {
        status.value = 'No tile lies here.';
        return;
    }
    batch(() => {
        selectedTile.value = tile;
        searchTile(`${tile.dataset_id}/${tile.tile_id}`);
    });
}

export function clearAnswer(): void {
    cancel(answer);
    cancel(similarity);
    batch(() => {
        answer.value = IDLE;
        similarity.value = IDLE;
        hoveredHit.value = null;
    });
}

export function clearQuery(): void {
    batch(() => {
        query.value = NO_QUERY;
        selectedTile.value = null;
        uploadedImage.value = null;
        clearAnswer();
    });
}

export function setWhere(change: Partial<WhereState>): void {
    where.value = {...where.value, ...change};
    void searchAgain();
}

export function setK(value: number): void {
    k.value = value;
    void searchAgain();
}
