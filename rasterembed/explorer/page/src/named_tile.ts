/** Find the full name of a tile that a person typed or a URL named, and the other scenes at its place. */
import {effect} from '@preact/signals';
import * as api from './api.ts';
import type {Answer} from './api.ts';
import {withoutEntry} from './history.ts';
import {tilesAtClick} from './search_state.ts';
import {answer, layerFilters, nameOfTile, openView, query, selectedTile, valueOf} from './state.ts';

const TILE = /^(?:[a-z0-9][a-z0-9._-]*\/)?(?:r\d{6}_c\d{6}|x[+-]\d{6,12}_y[+-]\d{6,12})$/;

/** Return whether a text has the form of a tile id, with or without its dataset. */
export function isTileName(text: string): boolean {
    return TILE.test(text);
}

/** Return the full name of a tile that a person named without its dataset, or null if the answer does not tell it. */
export function fullName(tile: string, {examples}: Pick<Answer, 'examples'>): string | null {
    const found = examples.find((example) => example.role === 'query' && example.tile?.endsWith(`/${tile}`));
    return found?.tile ?? null;
}

/** Give the tile of the query its full name when the answer tells it. Pictures and outlines need the full name. */
function followName(): () => void {
    return effect(() => {
        const shown = valueOf(answer.value);
        const {tile} = query.peek();
        if (!shown || tile === null || tile.includes('/')) return;
        const name = fullName(tile, shown);
        if (name === null) return;
        withoutEntry(() => {
            query.value = {...query.peek(), tile: name};
        });
    });
}

/** Ask for the scenes that show the tile of the query, unless a click has told them. */
function followScenes(): () => void {
    let asking = new AbortController();
    return effect(() => {
        const view = openView.value;
        const tile = selectedTile.value;
        const filters = layerFilters.value;
        asking.abort();
        if (!view || view.kind !== 'collections' || tile === null || tile.lon === null || tile.lat === null) return;
        const name = nameOfTile(tile);
        const has = (tiles: readonly api.Tile[]): boolean => tiles.some((one) => nameOfTile(one) === name);
        if (has(tilesAtClick.value)) return;
        asking = new AbortController();
        const {signal} = asking;
        void api.getTilesAt(view, tile.lon, tile.lat, filters, signal).then(
            (found) => {
                if (!signal.aborted && has(found)) tilesAtClick.value = found;
            },
            // Without the list, only the choice of another scene is missing. The search says what is wrong.
            () => undefined,
        );
    });
}

/** Complete the tile of the query. Return a function that ends this. */
export function followNamedTile(): () => void {
    const ends = [followName(), followScenes()];
    return () => {
        for (const end of ends) end();
    };
}
