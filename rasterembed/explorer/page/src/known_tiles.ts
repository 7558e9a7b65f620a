/** The tiles that the page has seen. The map draws the outlines of the query's examples from them. */
import {effect} from '@preact/signals';
import * as api from './api.ts';
import type {Hit, Tile} from './api.ts';
import {knownTiles, nameOfTile, openView, query} from './state.ts';

/** Largest number of tiles that are kept. */
const MOST_TILES = 5000;

/** Tiles that the service was asked for, so that a tile that does not exist is asked for once. */
const asked = new Set<string>();

export function rememberTiles(tiles: readonly Tile[]): void {
    const next = new Map(knownTiles.peek());
    for (const tile of tiles) next.set(nameOfTile(tile), tile);
    const surplus = Math.max(0, next.size - MOST_TILES);
    for (const name of [...next.keys()].slice(0, surplus)) next.delete(name);
    knownTiles.value = next;
}

export function rememberHits(hits: readonly Hit[]): void {
    const tiles = hits.map(({geometry, properties}): Tile => {
        const outline = geometry?.type === 'Polygon' || geometry?.type === 'MultiPolygon' ? geometry : null;
        const {rank: _rank, distance: _distance, similarity: _similarity, ...rest} = properties;
        return {...rest, geometry: outline};
    });
    // A tile that was clicked has more columns than one of an answer.
    rememberTiles(tiles.filter((tile) => !knownTiles.peek().has(nameOfTile(tile))));
}

/** Ask for the examples that a URL named. Return a function that ends this. */
export function followExamples(): () => void {
    let version: string | null = null;
    return effect(() => {
        const view = openView.value;
        const {tile, like, unlike} = query.value;
        if (view === null) return;
        if (view.v !== version) {
            version = view.v;
            asked.clear();
            knownTiles.value = new Map();
        }
        for (const name of [...(tile === null ? [] : [tile]), ...like, ...unlike]) {
            if (!name.includes('/') || knownTiles.peek().has(name) || asked.has(name)) continue;
            asked.add(name);
            // Without the outline, only its drawing on the map is missing. The search says what is wrong with the tile.
            void api.getTile(view, name).then(
                (found) => {
                    if (openView.peek()?.v === view.v) rememberTiles([found]);
                },
                () => undefined,
            );
        }
    });
}
