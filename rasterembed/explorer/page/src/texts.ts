/** Numbers and places of tiles as text for people. */
import {wrapLongitude} from './map/angles.ts';

/** Return a similarity with four decimals. Near tiles of one scene often differ only in the third one. */
export function similarityText(similarity: number): string {
    return similarity.toFixed(4);
}

/** Return a place in degrees, such as `60.196° N, 24.920° E`; three decimals are about 100 m. A tile without a place on Earth is named by its id. */
export function placeText(tile: {lon: number | null; lat: number | null; tile_id: string}): string {
    if (tile.lon === null || tile.lat === null) return tile.tile_id;
    return positionText(tile.lon, tile.lat, 3);
}

/** Return a position in degrees as people read it, such as `47.12345° N, 8.54321° E`. */
export function positionText(lon: number, lat: number, digits = 5): string {
    const half = (value: number, positive: string, negative: string): string =>
        `${Math.abs(value).toFixed(digits)}° ${value < 0 ? negative : positive}`;
    return `${half(lat, 'N', 'S')}, ${half(wrapLongitude(lon), 'E', 'W')}`;
}

/** Return the last part of a tile's name `dataset_id/tile_id`. */
export function tileOf(name: string): string {
    return name.slice(name.indexOf('/') + 1);
}

/** Return a duration as text for people. */
export function secondsText(seconds: number): string {
    return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}
